"""What was measured when: which runs one looks for, and which of their rows are of one kind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

from slmkit.core.bench import BenchRow, BenchRun
from slmkit.core.quality import QualityRow, QualityRun
from slmkit.core.sensitivity import Cost, Sensitivity

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
Row = TypeVar("Row", BenchRow, QualityRow)


@dataclass(frozen=True)
class _Stored:
    id: str

    @property
    def short(self) -> str:
        """The end of the id, which is mostly enough: `3fa9c1`."""
        return short(self.id)


@dataclass(frozen=True)
class StoredRun(_Stored):
    """A bench that is kept, and what to type to name it."""

    run: BenchRun


@dataclass(frozen=True)
class StoredQuality(_Stored):
    """The same for a run of `quality`."""

    run: QualityRun


@dataclass(frozen=True)
class StoredSensitivity(_Stored):
    """The same for a run of `quality --sensitivity`."""

    run: Sensitivity


Stored = StoredRun | StoredQuality | StoredSensitivity


@dataclass(frozen=True)
class Listed:
    """A bench, and its rows that one looks for."""

    stored: StoredRun
    rows: tuple[BenchRow, ...]


@dataclass(frozen=True)
class ListedQuality:
    """The same for a run of `quality`."""

    stored: StoredQuality
    rows: tuple[QualityRow, ...]


@dataclass(frozen=True)
class ListedSensitivity:
    """The same for a run of `quality --sensitivity`; `rows` are its groups of tensors."""

    stored: StoredSensitivity
    rows: tuple[Cost, ...]


AnyListed = Listed | ListedQuality | ListedSensitivity


def short(run_id: str) -> str:
    """The end of an id."""
    return run_id.rpartition("-")[2]


@dataclass(frozen=True)
class Wanted:
    """Which runs one looks for; `None` is any. Days are those of UTC, both included.

    `model` and `host` are part of the name, in any case; `quant` is the whole type or variant.
    """

    model: str | None = None
    quant: str | None = None
    host: str | None = None
    since: date | None = None
    until: date | None = None

    def among(self, rows: Iterable[Row], run: BenchRun | QualityRun, day: date) -> tuple[Row, ...]:
        """The rows of a run that one looks for; none when the run is not one."""
        return tuple(row for row in rows if self._is(row.ref)) if self._is_when_and_where(run, day) else ()

    def groups(self, run: Sensitivity, day: date) -> tuple[Cost, ...]:
        """The groups of a run of `quality --sensitivity`; none when it is of another model or type."""
        quant = self.quant is None or self.quant.lower() == run.type.lower()
        of = quant and replace(self, quant=None)._is(run.ref)
        return run.costs if of and self._is_when_and_where(run, day) else ()

    def _is_when_and_where(self, run: BenchRun | QualityRun | Sensitivity, day: date) -> bool:
        if self.host and self.host.lower() not in host_name(run).lower():
            return False
        return not ((self.since and day < self.since) or (self.until and day > self.until))

    def _is(self, ref: str) -> bool:
        label = label_of(ref).lower()
        if self.quant and not re.search(rf"[-_.:]{re.escape(self.quant.lower())}$", label):
            return False
        return not self.model or self.model.lower() in ref.lower() or self.model.lower() in label


def host_name(run: BenchRun | QualityRun | Sensitivity) -> str:
    """The machine in a few words: its CPU, its GPU."""
    known = (run.host.get("cpu"), run.host.get("gpu"))
    return ", ".join(str(name) for name in known if name) or "unknown machine"


def label_of(ref: str) -> str:
    """A file's name wherever it is: `m-Q4_0` of `org/m:Q4_0`, `./m-Q4_0.gguf`, `m-Q4_0-00001-of-00003.gguf`."""
    if ref.lower().endswith(".gguf"):
        return _SHARD.sub("", re.split(r"[/\\]", ref)[-1][: -len(".gguf")])
    model, _, variant = ref.rpartition(":") if ":" in ref else (ref, "", "")
    return "-".join(part for part in (model.rpartition("/")[2], variant) if part)


def conditions(run: BenchRun, row: BenchRow) -> tuple[Any, ...]:
    """The model, the settings and the machine: what stays the same in a trend, whatever engine it is."""
    settings = sorted(row.spec.conditions().items(), key=str)
    return (label_of(row.ref).lower(), run.source, *settings, *machine_of(run).values())


def machine_of(run: BenchRun) -> dict[str, Any]:
    """What tells a machine from others; not its kernel's release, nor the memory that this keeps for itself."""
    memory = run.host.get("memory_bytes")
    return {
        "host": host_name(run),
        "cores": run.host.get("n_cores"),
        "memory": f"{memory / 2**30:.0f} GiB" if memory else None,
        "system": str(run.host.get("system") or "").partition(" ")[0] or None,
    }
