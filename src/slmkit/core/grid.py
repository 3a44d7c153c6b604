"""Lists and ranges of settings, and the configurations that they span."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from slmkit.core.bench import BenchSpec
from slmkit.errors import UsageError

_RANGE = re.compile(r"(?P<first>-?\d+)(?:-(?P<last>\d+)(?:(?P<op>[+*])(?P<step>\d+))?)?")
_MOST = 1000


def numbers(option: str, *texts: str) -> tuple[int, ...]:
    """`512`, `1,2,4`, `1-8`, `1-8+2` and `1-8*2`, as llama-bench reads them; raises `UsageError`."""
    text = ",".join(texts)
    found: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if not match:
            raise UsageError(
                f"{option} is {text!r}: {part!r} is no number and no range", hint="such as 4, 1,2,4 or 1-8*2"
            )
        first, last = int(match["first"]), int(match["last"] or match["first"])
        grow, step = match["op"] == "*", int(match["step"] or 1)
        if (grow and (step < 2 or first < 1)) or (not grow and step < 1) or last < first:
            raise UsageError(f"{option} is {text!r}: {part!r} never gets to its end", hint="such as 1-8*2 or 1-8+1")
        while first <= last:
            found.append(first)
            first = first * step if grow else first + step
            if len(found) > _MOST:
                raise UsageError(f"{option} is {text!r}: more than {_MOST} values")
    return tuple(dict.fromkeys(found))


def switches(option: str, *texts: str) -> tuple[bool, ...]:
    """`0`, `1` and `0,1`; raises `UsageError`."""
    found = numbers(option, *texts)
    if not {0, 1}.issuperset(found):
        raise UsageError(f"{option} is {','.join(texts)!r}: it can only be 0, 1 or 0,1")
    return tuple(map(bool, found))


def words(*texts: str) -> tuple[str, ...]:
    """`f16,q8_0`."""
    return tuple(dict.fromkeys(part.strip().lower() for text in texts for part in text.split(",")))


def pair(option: str, text: str) -> tuple[int, int]:
    """`512,128` of `-pg`; raises `UsageError`."""
    try:
        n_prompt, n_gen = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} is {text!r}", hint="a prompt and what is generated after it, such as 512,128"
        ) from None
    return n_prompt, n_gen


@dataclass(frozen=True)
class Grid:
    """Every setting with all its values. `spans` gives the configurations."""

    n_prompt: Sequence[int] = (512,)
    n_gen: Sequence[int] = (128,)
    n_pg: Sequence[tuple[int, int]] = ()
    depth: Sequence[int] = (0,)
    n_batch: Sequence[int] = (2048,)
    n_ubatch: Sequence[int] = (512,)
    type_k: Sequence[str] = ("f16",)
    type_v: Sequence[str] = ("f16",)
    flash_attn: Sequence[str] = ("auto",)
    n_threads: Sequence[int | None] = (None,)
    n_gpu_layers: Sequence[int] = (-1,)
    mmap: Sequence[bool] = (True,)
    n_parallel: Sequence[int] = (1,)

    def spans(self, plain: BenchSpec) -> tuple[BenchSpec, ...]:
        """`plain` with each combination of settings. Tests of several lengths are not combined with each other, since
        each is measured by itself, as in llama-bench; raises `UsageError` for what cannot be.
        """
        settings = (
            ("depth", self.depth),
            ("n_batch", self.n_batch),
            ("n_ubatch", self.n_ubatch),
            ("type_k", self.type_k),
            ("type_v", self.type_v),
            ("flash_attn", self.flash_attn),
            ("n_threads", self.n_threads),
            ("n_gpu_layers", self.n_gpu_layers),
            ("mmap", self.mmap),
            ("n_parallel", self.n_parallel),
        )
        tests = list(itertools.zip_longest(self.n_prompt, self.n_gen, self.n_pg))
        specs = []
        for values in itertools.product(*(values for _, values in settings)):
            chosen: dict[str, Any] = dict(zip((name for name, _ in settings), values, strict=True))
            for n_prompt, n_gen, n_pg in tests:
                lengths: dict[str, Any] = {"n_prompt": n_prompt or 0, "n_gen": n_gen or 0}
                lengths |= dict(zip(("n_pg_prompt", "n_pg_gen"), n_pg or (0, 0), strict=True))
                specs.append(replace(plain, **chosen, **lengths))
        return tuple(dict.fromkeys(specs))
