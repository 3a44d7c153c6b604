"""`compare`: one table out of what is there already. Nothing is measured again, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from slmkit.backends.llamacpp import child
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.compare import CompareRow, Comparison
from slmkit.errors import UsageError
from slmkit.host import probe
from slmkit.registry import runs
from slmkit.registry.store import Registry

BASELINES = ("F16", "BF16")
_ORDER = {name: i for i, name in enumerate(("F32", "F16", "BF16"))}


def compare(artifacts: Sequence[Artifact], registry: Registry) -> Comparison:
    """Size, reduction, bpw and the newest comparable measurement of each artifact.

    Measurements stand side by side only when machine, engine build and every setting are the same; those of the newest
    run that measured any of the artifacts are the ones that count. Raises `UsageError` for nothing to compare.
    """
    if not artifacts:
        raise UsageError("nothing to compare", hint="`slmkit list` shows what there is")
    measured = list(_measured({a.digest for a in artifacts}, registry))
    conditions = _conditions(*measured[0]) if measured else None
    newest: dict[str, BenchRow] = {}
    others = 0
    for run, row in measured:
        if _conditions(run, row) == conditions:
            newest.setdefault(row.digest, row)
        else:
            others += 1
    rows = tuple(_row(a, newest.get(a.digest), registry) for a in sorted(artifacts, key=_order))
    spec = measured[0][1].spec if measured else None
    notes = (f"{others} older measurements were made under other conditions and are left out",) if others else ()
    return Comparison(rows, spec, tuple(_missing(rows, spec)), notes)


def is_measured(artifact: Artifact, spec: BenchSpec, registry: Registry) -> bool:
    """Whether this machine and this engine have measured these very bytes under these settings."""
    wanted = replace(spec, n_threads=spec.n_threads or probe.physical_cores()).conditions()
    here, engine = probe.host().document(), child.installed()
    return any(
        row.spec.conditions() == wanted and _machine(run.host) == _machine(here) and run.build.get("engine") == engine
        for run, row in _measured({artifact.digest}, registry)
    )


def _measured(digests: set[str], registry: Registry) -> Iterator[tuple[BenchRun, BenchRow]]:
    for document in runs.load(registry.home, "bench"):
        run = BenchRun.from_document(document)
        for row in run.rows:
            if row.digest in digests and row.failure is None:
                yield run, row


def _conditions(run: BenchRun, row: BenchRow) -> tuple[Any, ...]:
    return (*sorted(row.spec.conditions().items()), *sorted(run.build.items()), *_machine(run.host))


def _machine(host: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(host.get(k) for k in ("cpu", "n_cores", "memory_bytes", "system"))


def _row(artifact: Artifact, bench: BenchRow | None, registry: Registry) -> CompareRow:
    baseline = _baseline(artifact, registry)
    reduction = 1 - artifact.size_bytes / baseline.size_bytes if baseline else None
    return CompareRow(
        ref=artifact.ref,
        model=artifact.model,
        variant=artifact.variant or "",
        size_bytes=artifact.size_bytes,
        reduction=reduction,
        bpw=artifact.facts.get("bpw"),
        bench=bench,
    )


def _baseline(artifact: Artifact, registry: Registry) -> Artifact | None:
    if artifact.variant in BASELINES:
        return artifact
    found = (registry.find(artifact.model, name) for name in BASELINES)
    return next((a for a in found if a), None)


def _missing(rows: Sequence[CompareRow], spec: BenchSpec | None) -> Iterator[str]:
    """The commands that would fill the dashes."""
    unmeasured = [row.ref for row in rows if row.bench is None]
    if unmeasured:
        settings = f" {_options(spec)}" if spec and _options(spec) else ""
        yield f"slmkit bench {' '.join(unmeasured)}{settings}"
    for model in dict.fromkeys(row.model for row in rows if row.reduction is None):
        yield f"slmkit convert {model}"


def _options(spec: BenchSpec) -> str:
    plain = BenchSpec()
    options = (
        ("-p", spec.n_prompt, plain.n_prompt),
        ("-n", spec.n_gen, plain.n_gen),
        ("-d", spec.depth, plain.depth),
        ("--n-gpu-layers", spec.n_gpu_layers, plain.n_gpu_layers),
        ("-t", spec.n_threads, None),
    )
    return " ".join(f"{flag} {value}" for flag, value, default in options if value != default)


def _order(artifact: Artifact) -> tuple[str, int, int]:
    return artifact.model.lower(), _ORDER.get(artifact.variant or "", len(_ORDER)), -artifact.size_bytes
