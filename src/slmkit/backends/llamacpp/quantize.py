"""The parent's side of quantizing: typed calls, and what the engine's log says of each tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.backends.llamacpp.child import Children, Event, run
from slmkit.backends.llamacpp.engine import SMOKE_TOKENS
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import DiskFullError, EngineError, ImatrixNeededError
from slmkit.formats.gguf.header import shards
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

_DEFAULT = QuantizeSpec()

# llama-quant.cpp (0c1e57098) writes one line for each tensor, in a dry run
#   [  12/ 272] blk.0.ffn_down.weight - [ 1536,   576,     1,     1], type =    f16, size = 1.69 MiB -> 0.47 MiB (q4_0)
# and in earnest "... type =    f16, converting to q4_0 .. size = ..."; "size = 0.002 MiB" alone for one that stays.
_TENSOR_LINE = re.compile(r"\[\s*\d+/\s*\d+\]\s+\S+\s+- \[(?P<shape>[^\]]*)\], type =\s*(?P<was>\w+)")
_TENSOR = re.compile(
    r"\[\s*\d+/\s*\d+\]\s+(?P<name>\S+)\s+- \[\s*(?P<row>\d+),[^\]]*\], type =\s*(?P<was>\w+), "
    r"(?:\s*=+ \S+: did not find weights for \S+\s+)?"  # with an imatrix, of the embedding and the output
    r"(?:converting to (?P<made>\w+) |size =\s*[\d.]+ MiB(?: ->\s*[\d.]+ MiB \((?P<planned>\w+)\))?)"
)
_FALLBACK = re.compile(
    r"warning: (?P<name>\S+)\s+- ncols\s+\d+ not divisible by\s+\d+ \(required for type\s+(?P<wanted>\w+)\)"
    r".*?-> falling back to\s+(?P<got>\w+)",
    re.DOTALL,
)
_FAILED_LINE = re.compile(r"failed to quantize: (.+)")
_OUTPUT = ("output.weight", "token_embd.weight")


@dataclass(frozen=True)
class Fallback:
    """A tensor whose rows do not divide into the blocks of the type it should have had."""

    name: str
    wanted: str
    got: str


@dataclass(frozen=True)
class QuantizeResult:
    """What became of each tensor: its ggml type by name, in the order of the file, and those that fell back.

    `elapsed_ns` is the engine's call alone, without the start of its process.
    """

    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    elapsed_ns: int
    build: Mapping[str, str]

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
    """What quantizing would make; `needs_imatrix` says that it would stop without one, and `types` are those with."""

    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    needs_imatrix: bool


def quantize(
    source: Path,
    target: Path,
    quant: QuantType,
    *,
    n_threads: int,
    progress: Progress,
    spec: QuantizeSpec = _DEFAULT,
    when_written: Callable[[], None] | None = None,
    children: Children | None = None,
) -> QuantizeResult:
    """Write `target` in type `quant`, weighing errors by its imatrix; raises `EngineError` with the engine's reason.

    With `spec.keep_split` the files are `<target's stem>-00001-of-00003.gguf` and so on. With `when_written`, which is
    called as soon as they are there, the same process then decodes a few tokens with them (`engine.smoke`).
    """
    log: list[str] = []
    written = False
    with progress.task(f"quantize {quant}", sum(path.stat().st_size for path in shards(source)), "bytes") as task:
        reading_bytes = 0

        def listen(event: Event, _: int) -> None:
            nonlocal reading_bytes, written
            if event["event"] == "written" and when_written:
                written = True
                task.advance(reading_bytes)
                when_written()
            if event["event"] != "log":
                return
            log.append(event["text"])
            for match in _TENSOR_LINE.finditer(event["text"]):  # the engine begins with it, and is done with the last
                task.advance(reading_bytes)
                n_weights = math.prod(map(int, match["shape"].split(",")))
                reading_bytes = GGML_TYPES_BY_NAME[match["was"].upper()].size_bytes(n_weights)

        options = {**_options(quant, spec), "n_threads": n_threads}
        named = target.with_suffix("") if spec.keep_split else target  # the engine puts numbers and suffix after it
        arguments = {"source": str(source), "target": str(named), **options}
        if when_written:
            arguments["try_tokens"] = SMOKE_TOKENS
        try:
            result = run("quantize", arguments, listen=listen, children=children)
        except EngineError as error:
            if written:
                raise _useless(quant, error) from error
            if type(error) is not EngineError:
                raise
            reason = _reason(error.log)
            if "iostream error" in reason:  # what std::ofstream says when it cannot write
                raise DiskFullError(
                    f"no space left on the disk of {target.parent}", hint="free some: `slmkit list` shows sizes"
                ) from error
            if "imatrix" in reason or "importance matrix" in reason:
                raise imatrix_needed(quant, error.log) from error
            raise EngineError(f"{error.message}: {reason}", hint=error.hint, log=error.log) from error
    text = "".join(log)
    types = _types(text)
    if not types:
        raise EngineError("the engine's log names no tensor: has its format changed?", log=tuple(log[-20:]))
    return QuantizeResult(types, _fallbacks(text, quant), result["elapsed_ns"], dict(result["build"]))


def _useless(quant: QuantType, error: EngineError) -> EngineError:
    return type(error)(
        f"the {quant} file was made but does not work, and was deleted: {error.message}",
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


def dry_run(source: Path, requests: Sequence[tuple[QuantType, QuantizeSpec]]) -> list[DryRun | EngineError]:
    """What each of `requests` would make of `source`, of which only the header is read: its weights may be a hole.

    An entry is an error where the engine refuses. One child does them all.
    """
    result = run("dry_run", {"source": str(source), "requests": [_options(quant, spec) for quant, spec in requests]})
    answers: list[DryRun | EngineError] = []
    for (quant, _), answer in zip(requests, result["logs"], strict=True):
        text = str(answer["log"])
        if answer["made"]:
            answers.append(DryRun(_types(text), _fallbacks(text, quant), bool(answer["needs_imatrix"])))
        else:
            log = tuple(text.splitlines()[-20:])
            answers.append(EngineError(f"the engine cannot make {quant}: {_reason(log)}", log=log))
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


def _types(log: str) -> dict[str, str]:
    return {m["name"]: (m["made"] or m["planned"] or m["was"]).upper() for m in _TENSOR.finditer(log)}


def _fallbacks(log: str, quant: QuantType) -> tuple[Fallback, ...]:
    """Those that the engine tells of, and the output's matrix, which it gives Q8_0 without a word when its rows do not
    divide into the blocks of the file's type (`llama_tensor_get_type_impl`).
    """
    told = [Fallback(m["name"], m["wanted"].upper(), m["got"].upper()) for m in _FALLBACK.finditer(log)]
    block = GGML_TYPES_BY_NAME[quant.base].block
    named = {fallback.name for fallback in told}
    quiet = [
        Fallback(m["name"], quant.base, "Q8_0")
        for m in _TENSOR.finditer(log)
        if m["name"] in _OUTPUT and m["name"] not in named
        if int(m["row"]) % block and (m["made"] or m["planned"] or "").upper() == "Q8_0"
    ]
    return (*told, *quiet)


def _reason(log: tuple[str, ...]) -> str:
    """The last line of the engine's log that says why; the last line of all when none does."""
    said = [match[1] for line in log if (match := _FAILED_LINE.search(line))]
    return (said or log or ("no log",))[-1].strip()
