"""`plan`: size, memory and speed of every type before anything is made, from headers alone.

The engine itself does the sums, on hollow files: its dry run of `quantize` says which type each tensor gets, and a load
without memory says what the buffers take.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slmkit.backends.llamacpp.child import Children, require_engine
from slmkit.backends.llamacpp.memory import load_memory
from slmkit.backends.llamacpp.quantize import DryRun, dry_run
from slmkit.core.artifact import Artifact
from slmkit.core.plan import MAPPED, Context, ContextPlan, LoadMemory, ModelPlan, TypePlan
from slmkit.core.progress import Progress
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.units import size
from slmkit.errors import EngineError, SlmkitError, UsageError
from slmkit.formats.gguf.hollow import Hollow
from slmkit.formats.gguf.writer import Value, string, u32
from slmkit.host import bandwidth, memory
from slmkit.host.probe import physical_cores

DEFAULT_N_CTX = (4096, 32768)
"""As far as the model's own context goes."""

CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
"""What llama.cpp takes for a KV cache (`kv_cache_types` of common/arg.cpp, 0c1e57098)."""

F16 = "F16"

_AT_A_TIME = 4
"""Children that ask for memory: more take longer to start than they save."""

_BANDWIDTH_S = 0.1
"""Enough for an estimate: some hundred chunks."""

_Types = tuple[str, ...]

_QUANTIZED = "the file is quantized already: quantizing it again would add its errors to the new ones"


@dataclass(frozen=True)
class PlanSource:
    """What is planned with: `made` are the files that are known as a whole, by type, of which `base` is the one to
    quantize from.

    A `base` that is no float stands for itself only. `remarks` say what else should be known, `artifact` is the file of
    `base` where it is here.
    """

    ref: str
    made: Mapping[str, Hollow]
    base: str
    remarks: tuple[str, ...] = ()
    artifact: Artifact | None = None

    @property
    def is_float(self) -> bool:
        """Whether other types can be made of it."""
        return self.base in QUANT_TYPES and QUANT_TYPES[self.base].is_float


@dataclass(frozen=True)
class Weighing:
    """The importance matrix that types are made with: all of them, or only those that cannot be made without.

    `origin` is what they say of it in their metadata (`formats.imatrix.origin`), and `unmet` why one of them cannot be
    made with it.
    """

    name: str
    origin: Mapping[str, int | str]
    everywhere: bool = False
    unmet: Callable[[QuantType, DryRun], SlmkitError | None] = lambda quant, answer: None

    @property
    def metadata(self) -> Mapping[str, Value]:
        """As the engine writes it."""
        return {k: string(v) if isinstance(v, str) else u32(v) for k, v in self.origin.items()}


@dataclass(frozen=True)
class _Candidate:
    """One type that can be made."""

    variant: str
    hollow: Hollow
    fallback_share: float = 0.0
    needs_imatrix: bool = False

    @property
    def types(self) -> _Types:
        """Of its tensors."""
        return tuple(entry.type.name for entry in self.hollow.entries)


def prepare(children: Children) -> None:
    """Start what `plan` will need, while its source is read: half of their time is their start."""
    children.prepare("dry_run", *["memory"] * _n_children())


def plan(
    source: PlanSource,
    types: Sequence[QuantType],
    weighing: Weighing,
    progress: Progress,
    *,
    n_ctx: Sequence[int] = (),
    cache_types: Sequence[str] = ("F16",),
    ram_bytes: int | None = None,
    bandwidth_bytes_per_s: float | None = None,
    children: Children | None = None,
) -> ModelPlan:
    """All of `types` (none: every one there is) at each context with each type of KV cache.

    `n_ctx` is by default `DEFAULT_N_CTX`, `ram_bytes` this machine's memory or the limit of the container (which is
    then said), `bandwidth_bytes_per_s` that which is measured now, `children` may be those that `prepare` has started.
    Raises `EngineMissingError`, `UsageError` for a context or cache that cannot be.
    """
    require_engine()
    children = children or Children()
    base = source.made[source.base]
    n_ctx_train = base.number("context_length")
    contexts = [Context(n, kind) for n in _contexts(n_ctx, n_ctx_train) for kind in _cache_types(cache_types)]
    names = [quant.name for quant in types or _all_types(source)] or [source.base]
    with progress.task(f"plan {source.ref}", None, "steps"), tempfile.TemporaryDirectory(prefix="slmkit-") as folder:
        candidates, refused = _candidates(source, names, weighing, Path(folder), children)
        memories = _memories(candidates, contexts, Path(folder), children)
        bytes_per_s = bandwidth_bytes_per_s or bandwidth.read_bytes_per_s(physical_cores(), _BANDWIDTH_S)
    limited = _container_note() if ram_bytes is None else ()
    ram_bytes = memory.usable_bytes() if ram_bytes is None else ram_bytes
    f16 = next((c.hollow for c in candidates if c.variant == F16), None)
    rows = [
        _row(candidate, answers, contexts, f16, ram_bytes, bytes_per_s)
        for candidate, answers in zip(candidates, memories, strict=True)
        if candidate.variant in names
    ]
    twins = _twins([candidate for candidate in candidates if candidate.variant in names])
    rows = [replace(row, same_as=twins.get(row.variant)) for row in rows]
    rows.sort(key=lambda row: -(row.size_bytes or 0))
    return ModelPlan(
        ref=source.ref,
        architecture=base.architecture,
        n_params=base.n_params,
        context_length=n_ctx_train,
        ram_bytes=ram_bytes,
        bandwidth_bytes_per_s=bytes_per_s,
        contexts=tuple(contexts),
        types=(*rows, *refused),
        imatrix=weighing.name if weighing.everywhere else None,
        notes=(*source.remarks, *limited, *_beyond(contexts, n_ctx_train)),
    )


def _all_types(source: PlanSource) -> list[QuantType]:
    if source.is_float:
        return list(QUANT_TYPES.values())
    return [QUANT_TYPES[source.base]] if source.base in QUANT_TYPES else []


def _contexts(n_ctx: Sequence[int], trained: int | None) -> list[int]:
    if not n_ctx:
        return sorted({min(n, trained or n) for n in DEFAULT_N_CTX})
    if wrong := [n for n in n_ctx if n < 1]:
        raise UsageError(f"a context of {wrong[0]} tokens", hint="`--ctx 4096,32768`")
    return list(dict.fromkeys(n_ctx))


def _cache_types(names: Sequence[str]) -> list[str]:
    wanted = list(dict.fromkeys(name.upper() for name in names))
    if wrong := [name for name in wanted if name not in CACHE_TYPES]:
        raise UsageError(f"no type of KV cache: {wrong[0]!r}", hint=f"one of {', '.join(CACHE_TYPES).lower()}")
    return wanted


def _candidates(
    source: PlanSource, names: Sequence[str], weighing: Weighing, folder: Path, children: Children
) -> tuple[list[_Candidate], list[TypePlan]]:
    """What can be made (F16 in any case, as what the others are compared with), and what cannot and why."""
    base = source.made[source.base]
    wanted = dict.fromkeys([*names, F16] if source.is_float else names)
    found = [_Candidate(name, source.made[name]) for name in wanted if name in source.made]
    others = [QUANT_TYPES[name] for name in wanted if name not in source.made]
    if not source.is_float:
        return found, [TypePlan(quant.name, refusal=_QUANTIZED) for quant in others]
    refused = []
    small = folder / "source.gguf"
    base.without_vocabulary().write(small)
    requests = [(quant, QuantizeSpec()) for quant in others]
    answers = dry_run(small, requests, children, weighed=weighing.everywhere)
    for quant, answer in zip(others, answers, strict=True):
        error = weighing.unmet(quant, answer) if isinstance(answer, DryRun) else answer
        if isinstance(answer, DryRun) and error is None:
            found.append(_quantized(base, quant, answer, weighing))
        elif error:
            refused.append(TypePlan(quant.name, refusal=error.message))
    return found, refused


def _quantized(base: Hollow, quant: QuantType, answer: DryRun, weighing: Weighing) -> _Candidate:
    sizes = {entry.name: math.prod(entry.shape) for entry in base.entries}
    fallen = sum(sizes[name] for name in {fallback.name for fallback in answer.fallbacks})
    hollow = base.quantized(answer.types, quant.ftype)
    if answer.needs_imatrix or (weighing.everywhere and not quant.is_float):
        hollow = replace(hollow, metadata={**hollow.metadata, **weighing.metadata})
    return _Candidate(quant.name, hollow, fallen / base.n_params, answer.needs_imatrix)


def _memories(
    candidates: Sequence[_Candidate], contexts: Sequence[Context], folder: Path, children: Children
) -> list[list[LoadMemory | EngineError]]:
    """The engine is asked once for those that come to the same."""
    paths: dict[_Types, Path] = {}
    for types, (candidate, *_) in _alike(candidates).items():
        paths[types] = folder / f"{candidate.variant}.gguf"
        candidate.hollow.without_vocabulary().write(paths[types])
    answers = load_memory(list(paths.values()), contexts, _n_children(), children)
    found = dict(zip(paths, answers, strict=True))
    return [
        [
            answer if isinstance(answer, EngineError) else _counted_once(answer, candidate.hollow)
            for answer in found[candidate.types]
        ]
        for candidate in candidates
    ]


def _n_children() -> int:
    return min(_AT_A_TIME, physical_cores())


def _twins(candidates: Sequence[_Candidate]) -> dict[str, str]:
    """Types that come to the same for this model, each with the one of them that falls back least."""
    found: dict[str, str] = {}
    for group in _alike(candidates).values():
        truest = min(group, key=lambda candidate: candidate.fallback_share)
        found |= {candidate.variant: truest.variant for candidate in group if candidate is not truest}
    return found


def _alike(candidates: Sequence[_Candidate]) -> dict[_Types, list[_Candidate]]:
    """Those whose tensors have the same types."""
    alike: dict[_Types, list[_Candidate]] = {}
    for candidate in candidates:
        alike.setdefault(candidate.types, []).append(candidate)
    return alike


def _counted_once(memory: LoadMemory, hollow: Hollow) -> LoadMemory:
    """An embedding that is also the output may be in the engine's sums twice (gemma3n; where the output is repacked):
    what is mapped from the file is there once, and the rows that are looked up are next to nothing.
    """
    copies = sum(size_bytes for name, size_bytes in memory.weights_bytes.items() if name != MAPPED)
    mapped = min(memory.file_backed_bytes, max(0, hollow.data_bytes - copies))
    return replace(memory, weights_bytes={**memory.weights_bytes, MAPPED: mapped})


def _row(
    candidate: _Candidate,
    answers: Sequence[LoadMemory | EngineError],
    contexts: Sequence[Context],
    f16: Hollow | None,
    ram_bytes: int,
    bytes_per_s: float,
) -> TypePlan:
    hollow = candidate.hollow
    read = hollow.bytes_per_token
    ways = []
    for context, answer in zip(contexts, answers, strict=True):
        if isinstance(answer, EngineError):
            ways.append(ContextPlan(context, None, refusal=answer.message))
        else:
            rate = bytes_per_s / (read + answer.kv_bytes)
            ways.append(ContextPlan(context, answer, answer.fits(ram_bytes), rate))
    return TypePlan(
        variant=candidate.variant,
        size_bytes=hollow.size_bytes,
        reduction=1 - hollow.size_bytes / f16.size_bytes if f16 else None,
        bpw=hollow.bpw,
        fallback_share=candidate.fallback_share,
        needs_imatrix=candidate.needs_imatrix,
        read_bytes=read,
        tg_estimate_tok_per_s=bytes_per_s / read,
        contexts=tuple(ways),
    )


def _container_note() -> tuple[str, ...]:
    limit = memory.container_bytes()
    if limit is None:
        return ()
    return (f"RAM is {size(limit)}, the limit of this container; the machine has {size(memory.total_bytes())}",)


def _beyond(contexts: Sequence[Context], trained: int | None) -> Iterator[str]:
    beyond = sorted({context.n_ctx for context in contexts if trained and context.n_ctx > trained})
    if beyond:
        yield f"beyond the {trained:,} tokens that the model was trained for: {', '.join(f'{n:,}' for n in beyond)}"
