"""The parent's side of quantizing: typed calls, and what the engine's log says of each tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.backends.llamacpp.child import Children, Event, run
from slmkit.backends.llamacpp.engine import SMOKE_TOKENS
from slmkit.backends.llamacpp.quantize_log import NO_SPACE, TENSOR_LINE, Fallback, fallbacks, reason, types
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import DiskFullError, EngineError, ImatrixNeededError, SlmkitError
from slmkit.formats.gguf.header import shards
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

_DEFAULT = QuantizeSpec()


@dataclass(frozen=True)
class QuantizeResult:
    """What became of each tensor: its ggml type by name, in the order of the file, and those that fell back.

    `elapsed_ns` is the work alone, of all files that were made together, without the start of its process.
    """

    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    elapsed_ns: int
    build: Mapping[str, str]

    @classmethod
    def of(cls, made: Mapping[str, Any], result: Mapping[str, Any]) -> QuantizeResult:
        """What the child says of one file, and of itself."""
        told = tuple(Fallback(**each) for each in made["fallbacks"])
        return cls(dict(made["types"]), told, result["elapsed_ns"], dict(result["build"]))

    @property
    def n_tensors(self) -> int:
        """Of the file."""
        return len(self.types)

    @property
    def n_fallback(self) -> int:
        """Tensors that got another type than asked for."""
        return len(self.fallbacks)


@dataclass(frozen=True)
class DryRun:
    """What quantizing would make; `needs_imatrix` says that it would stop without an importance matrix, and `types` are
    then those with one.
    """

    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    needs_imatrix: bool


@dataclass(frozen=True)
class Order:
    """One file to be made."""

    target: Path
    quant: QuantType
    spec: QuantizeSpec = _DEFAULT


def quantize(
    source: Path,
    target: Path,
    quant: QuantType,
    *,
    n_threads: int,
    progress: Progress,
    spec: QuantizeSpec = _DEFAULT,
) -> QuantizeResult:
    """Write `target` in type `quant`: `quantize_together` of one order."""
    (result,) = quantize_together(source, [Order(target, quant, spec)], n_threads=n_threads, progress=progress)
    return result


def quantize_together(
    source: Path,
    orders: Sequence[Order],
    *,
    n_threads: int,
    progress: Progress,
    when_written: Callable[[], None] | None = None,
    children: Children | None = None,
) -> list[QuantizeResult]:
    """Write all `orders` of one source in one process, which reads it once; raises `EngineError` with the reason, and
    `DiskFullError`: then none of them is good.

    With `spec.keep_split` the files are `<target's stem>-00001-of-00003.gguf` and so on. With `when_written`, which is
    called as soon as all are there, the same process then decodes a few tokens with each (`engine.smoke`).
    """
    names = ", ".join(order.quant.name for order in orders)
    n_bytes = sum(path.stat().st_size for path in shards(source))
    log: list[str] = []
    written = False
    with progress.task(f"quantize {names}", n_bytes, "bytes") as task:
        reading_bytes = done_bytes = 0

        def advance(read_bytes: int) -> None:
            nonlocal done_bytes
            read_bytes = min(read_bytes, n_bytes - done_bytes)
            done_bytes += read_bytes
            task.advance(read_bytes)

        def listen(event: Event, _: int) -> None:
            nonlocal reading_bytes, written
            if event["event"] == "written" and when_written:
                written = True
                advance(n_bytes)
                when_written()
            elif event["event"] == "read":
                advance(event["n_bytes"])
            elif event["event"] == "log":
                log.append(event["text"])
                for match in TENSOR_LINE.finditer(event["text"]):  # at its beginning
                    advance(reading_bytes)
                    n_weights = math.prod(map(int, match["shape"].split(",")))
                    reading_bytes = GGML_TYPES_BY_NAME[match["was"].upper()].size_bytes(n_weights)

        arguments = {
            "source": str(source),
            "orders": [_order(order) for order in orders],
            "n_threads": n_threads,
            "try_tokens": SMOKE_TOKENS if when_written else 0,
        }
        try:
            result = run("quantize", arguments, listen=listen, children=children)
        except EngineError as error:
            if written:
                raise _useless(names, error) from error
            if type(error) is not EngineError:
                raise
            raise _refusal(error, orders) from error
    made = [QuantizeResult.of(each, result) for each in result["made"]]
    if not all(each.types for each in made):
        raise EngineError("the engine's log names no tensor: has its format changed?", log=tuple(log[-20:]))
    return made


def _order(order: Order) -> dict[str, Any]:
    # The engine puts numbers and suffix after the name of shards.
    named = order.target.with_suffix("") if order.spec.keep_split else order.target
    return {"target": str(named), "base": order.quant.base, "options": _options(order.quant, order.spec)}


def _refusal(error: EngineError, orders: Sequence[Order]) -> SlmkitError:
    """What it means that the child said no."""
    why = reason((*error.log, error.message))
    if NO_SPACE in why or "iostream error" in why:  # the second is what std::ofstream says when it cannot write
        return DiskFullError(
            f"no space left on the disk of {orders[0].target.parent}", hint="free some: `slmkit list` shows sizes"
        )
    if "imatrix" in why or "importance matrix" in why:
        return imatrix_needed(orders[0].quant, error.log)
    return EngineError(f"llama.cpp could not quantize: {why}", hint=error.hint, log=error.log)


def _useless(names: str, error: EngineError) -> EngineError:
    return type(error)(
        f"the {names} file was made but does not work, and was deleted: {error.message}",
        hint=error.hint,
        log=error.log,
    )


def imatrix_needed(quant: QuantType, log: tuple[str, ...] = ()) -> ImatrixNeededError:
    """The error for it."""
    return ImatrixNeededError(
        f"{quant} of this model needs an importance matrix",
        hint="let it be made: `--imatrix auto`; Q2_K, Q3_K_S and IQ3_S are the smallest that do without",
        log=log,
    )


def dry_run(
    source: Path,
    requests: Sequence[tuple[QuantType, QuantizeSpec]],
    children: Children | None = None,
    *,
    weighed: bool = False,
) -> list[DryRun | EngineError]:
    """What each of `requests` would make of `source`, of which only the header is read: its weights may be a hole.

    With `weighed` all are as if made with an importance matrix, else those whose spec names one. An entry is an error
    where the engine refuses. One child does them all.
    """
    asked = [
        {**_options(quant, spec), "imatrix": None, "weighed": weighed or spec.imatrix is not None}
        for quant, spec in requests
    ]
    result = run("dry_run", {"source": str(source), "requests": asked}, children=children)
    answers: list[DryRun | EngineError] = []
    for (quant, _), answer in zip(requests, result["logs"], strict=True):
        text = str(answer["log"])
        if answer["made"]:
            answers.append(DryRun(types(text), fallbacks(text, quant.base), bool(answer["needs_imatrix"])))
        else:
            log = tuple(text.splitlines()[-20:])
            answers.append(EngineError(f"the engine cannot make {quant}: {reason(log)}", log=log))
    return answers


def _options(quant: QuantType, spec: QuantizeSpec) -> dict[str, Any]:
    def number(name: str | None) -> int | None:
        return None if name is None else GGML_TYPES_BY_NAME[name].id

    return {
        "ftype": quant.ftype,
        "rules": [(rule.pattern, number(rule.type)) for rule in spec.rules],
        "output_type": number(spec.output_type),
        "embedding_type": number(spec.embedding_type),
        "pure": spec.pure,
        "leave_output": spec.leave_output,
        "keep_split": spec.keep_split,
        "prune_layers": list(spec.prune_layers),
        "overrides": [(override.key, override.value) for override in spec.overrides],
        "allow_requantize": spec.allow_requantize,
        "max_buffer_bytes": spec.max_buffer_bytes,
        "imatrix": str(spec.imatrix.path) if spec.imatrix else None,
    }
