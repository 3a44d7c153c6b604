"""`compare`: one table out of what is there already. Nothing is measured again, and nothing is guessed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.compare import CompareRow, Comparison, Judged, with_best
from slmkit.errors import UsageError
from slmkit.host import probe
from slmkit.ops import comparable
from slmkit.registry import runs
from slmkit.registry.store import Registry

BASELINES = ("F16", "BF16")
_ORDER = {name: i for i, name in enumerate(("F32", "F16", "BF16"))}


def compare(artifacts: Sequence[Artifact], registry: Registry) -> Comparison:
    """Size, reduction, bpw and the newest comparable measurements of each artifact, of speed and of quality.

    Speed stands side by side only when machine, engine build and every setting are the same, quality when text, chunks,
    base and engine build are. Those conditions count under which most of the artifacts were measured, the newest of
    several. Raises `UsageError` for nothing to compare.
    """
    if not artifacts:
        raise UsageError("nothing to compare", hint="`slmkit list` shows what there is")
    measured = list(_measured({a.digest for a in artifacts}, registry))
    groups: dict[tuple[Any, ...], dict[str, BenchRow]] = {}  # the newest first, and in each row by digest
    for run, row in measured:
        groups.setdefault(_conditions(run, row), {}).setdefault(row.digest, row)
    conditions, chosen = max(groups.items(), key=lambda group: len(group[1]), default=(None, {}))
    others = sum(_conditions(run, row) != conditions for run, row in measured)
    stored, damaged = runs.quality_runs(registry.home)
    quality = comparable.choose(artifacts, [each.run for each in stored])
    rows = tuple(
        _row(a, chosen.get(a.digest), quality.judged.get(a.digest), registry) for a in sorted(artifacts, key=_order)
    )
    spec = next((row.spec for row in chosen.values()), None)
    were, are = ("measurement was", "is") if others == 1 else ("measurements were", "are")
    notes = [f"{others} {were} made under other conditions and {are} left out"] if others else []
    notes += [*quality.notes, *(f"{d.path} is damaged: `slmkit runs rm {d.path.stem}` deletes it" for d in damaged)]
    missing = [*_missing(rows, spec, registry), *quality.commands]
    where = next((run for run, row in measured if _conditions(run, row) == conditions), None)
    host, build = (where.host, where.build) if where else ({}, {})
    return Comparison(with_best(rows), spec, tuple(missing), tuple(notes), host, build, quality.terms)


def is_measured(artifact: Artifact, spec: BenchSpec, build: Mapping[str, str], registry: Registry) -> bool:
    """Whether this machine and this build of the engine have measured these very bytes under these settings."""
    return bool(measured([artifact], spec, build, registry))


def measured(
    artifacts: Sequence[Artifact], spec: BenchSpec, build: Mapping[str, str], registry: Registry
) -> dict[str, BenchRow]:
    """What this machine and this build of the engine have measured of these very bytes under these settings: the newest
    rows by digest.
    """
    wanted = replace(spec, n_threads=spec.n_threads or probe.physical_cores())
    return _measured_here(artifacts, registry).get(_key(wanted, build, probe.host().document()), {})


def measured_here(artifacts: Sequence[Artifact], registry: Registry) -> dict[str, BenchRow]:
    """The same under any settings and build, but the same for all: those under which most of them were measured."""
    return max(_measured_here(artifacts, registry).values(), key=len, default={})


def _measured_here(artifacts: Sequence[Artifact], registry: Registry) -> dict[tuple[Any, ...], dict[str, BenchRow]]:
    """By conditions, the newest first, and in each by digest."""
    machine = _machine(probe.host().document())
    groups: dict[tuple[Any, ...], dict[str, BenchRow]] = {}
    for run, row in _measured({a.digest for a in artifacts}, registry):
        if _machine(run.host) == machine:
            groups.setdefault(_conditions(run, row), {}).setdefault(row.digest, row)
    return groups


def _measured(digests: set[str], registry: Registry) -> Iterator[tuple[BenchRun, BenchRow]]:
    for document in runs.load(registry.home, "bench"):
        run = BenchRun.from_document(document)
        for row in run.rows:
            if row.digest in digests and row.failure is None:
                yield run, row


def _conditions(run: BenchRun, row: BenchRow) -> tuple[Any, ...]:
    return _key(row.spec, run.build, run.host)


def _key(spec: BenchSpec, build: Mapping[str, str], host: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*sorted(spec.conditions().items()), *sorted(build.items()), *_machine(host))


def _machine(host: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(host.get(name) for name in ("cpu", "n_cores", "memory_bytes", "system"))


def _row(artifact: Artifact, bench: BenchRow | None, quality: Judged | None, registry: Registry) -> CompareRow:
    baseline = _baseline(artifact, registry)
    reduction = 1 - artifact.size_bytes / baseline.size_bytes if baseline else None
    return CompareRow(
        ref=artifact.ref,
        model=artifact.model,
        variant=artifact.variant or "",
        size_bytes=artifact.size_bytes,
        reduction=reduction,
        is_baseline=baseline is not None and baseline.digest == artifact.digest,
        bpw=artifact.facts.get("bpw"),
        bench=bench,
        quality=quality,
    )


def _baseline(artifact: Artifact, registry: Registry) -> Artifact | None:
    found = (registry.find(artifact.model, name) for name in BASELINES)
    return next((a for a in found if a), artifact if artifact.variant in BASELINES else None)


def _missing(rows: Sequence[CompareRow], spec: BenchSpec | None, registry: Registry) -> Iterator[str]:
    """The commands that would fill the dashes."""
    unmeasured = [row.ref for row in rows if row.bench is None]
    if unmeasured:
        settings = f" {_options(spec)}" if spec and _options(spec) else ""
        yield f"slmkit bench {shlex.join(unmeasured)}{settings}"
    for model in dict.fromkeys(row.model for row in rows if row.reduction is None):
        if registry.find(model, None) is None:  # a GGUF that came alone has no F16 that could be made
            continue
        yield f"slmkit convert {model}"


def _options(spec: BenchSpec) -> str:
    plain = BenchSpec()
    options = (
        ("-p", spec.n_prompt, plain.n_prompt),
        ("-n", spec.n_gen, plain.n_gen),
        ("-d", spec.depth, plain.depth),
        ("-r", spec.repetitions, plain.repetitions),
        ("--n-gpu-layers", spec.n_gpu_layers, plain.n_gpu_layers),
        ("-t", spec.n_threads, None),
    )
    return " ".join(f"{flag} {value}" for flag, value, default in options if value != default)


def _order(artifact: Artifact) -> tuple[str, int, int]:
    return artifact.model.lower(), _ORDER.get(artifact.variant or "", len(_ORDER)), -artifact.size_bytes
