"""Which settings differ between the rows of benches, what the others have in common, and what to call a row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmkit.core import units
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec


@dataclass(frozen=True)
class Setting:
    """One setting: its key, the title of its column, and what is said where all rows have the same ("" for nothing)."""

    key: str
    title: str
    phrase: Callable[[Any], str]

    def value(self, spec: BenchSpec) -> Any:
        """For machines; a prompt is known by its digest."""
        value = getattr(spec, self.key)
        return value if self.key != "prompt" or value is None else hashlib.sha256(value.encode()).hexdigest()

    def text(self, spec: BenchSpec) -> str:
        """For people."""
        value = self.value(spec)
        if self.key == "prompt":
            return "slmkit's" if value is None else value[:8]
        if isinstance(value, bool):
            return "yes" if value else "no"
        return units.DASH if value is None else str(value)


def _several(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


SETTINGS = (
    Setting("n_threads", "threads", lambda n: _several(n, "thread") if n else ""),
    Setting("depth", "depth", lambda n: f"{n} tokens before" if n else ""),
    Setting("n_parallel", "parallel", lambda n: f"{n} sequences at once" if n != 1 else ""),
    Setting("n_gpu_layers", "ngl", lambda n: f"{_several(n, 'layer')} on the GPU" if n >= 0 else ""),
    Setting("n_batch", "n_batch", lambda n: f"n_batch {n}"),
    Setting("n_ubatch", "n_ubatch", lambda n: f"n_ubatch {n}"),
    Setting("type_k", "K", lambda name: f"{name} K"),
    Setting("type_v", "V", lambda name: f"{name} V"),
    Setting("flash_attn", "fa", lambda way: f"flash attention {way}"),
    Setting("mmap", "mmap", lambda mapped: "mmap" if mapped else "no mmap"),
    Setting("prompt", "prompt", lambda digest: f"prompt {digest[:8]}" if digest else ""),
)
TESTS = ("n_prompt", "n_gen", "n_pg_prompt", "n_pg_gen")
_NOISE = re.compile(r"\((R|TM|C)\)|\b(CPU|Processor)\b|@ *[0-9.]+ *GHz", re.IGNORECASE)
HOST_KEYS = ("cpu", "n_cores", "memory_bytes", "system")


@dataclass(frozen=True)
class Entry:
    """A row and the run that it is of."""

    row: BenchRow
    run: BenchRun

    @property
    def model(self) -> str:
        """Without the type: `org/name`."""
        return self.row.ref.rpartition(":")[0] or self.row.ref

    @property
    def variant(self) -> str:
        """`Q4_0`; empty where the reference names none."""
        return self.row.ref.rpartition(":")[2] if ":" in self.row.ref else ""


@dataclass(frozen=True)
class Entries:
    """The rows of one or several runs, and what differs between them."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, *runs: BenchRun) -> Entries:
        """All rows, in the order of the runs."""
        return cls(tuple(Entry(row, run) for run in runs for row in run.rows))

    @property
    def specs(self) -> list[BenchSpec]:
        """One for each row."""
        return [entry.row.spec for entry in self.entries]

    @property
    def model(self) -> str | None:
        """The one model that all rows are of, each with a type; else `None`."""
        models = {entry.model for entry in self.entries}
        return models.pop() if len(models) == 1 and all(entry.variant for entry in self.entries) else None

    @property
    def varying(self) -> tuple[Setting, ...]:
        """Settings that differ."""
        return tuple(setting for setting in SETTINGS if len({setting.value(spec) for spec in self.specs}) > 1)

    @property
    def tests_vary(self) -> bool:
        """Whether the lengths of the tests differ."""
        return len({tuple(getattr(spec, name) for name in TESTS) for spec in self.specs}) > 1

    @property
    def differing_host(self) -> tuple[str, ...]:
        """What differs between the machines, by the keys of `BenchRun.host`."""
        return self._differing([entry.run.host for entry in self.entries], HOST_KEYS)

    @property
    def differing_build(self) -> tuple[str, ...]:
        """What differs between the engines, by the keys of `BenchRun.build`; a run of failures knows none."""
        builds = [entry.run.build for entry in self.entries if entry.run.build]
        return self._differing(builds, tuple(dict.fromkeys(key for build in builds for key in build)))

    def _differing(self, documents: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(key for key in keys if len({str(document.get(key)) for document in documents}) > 1)

    def name(self, entry: Entry) -> str:
        """What the row is of: its type where all rows are of one model."""
        return entry.variant if self.model else entry.row.ref

    def label(self, entry: Entry, *, name: str = "", without: str = "") -> str:
        """Name and varying settings: `Q4_0, threads 4`. `without` is the key of a setting that is said elsewhere."""
        spec = entry.row.spec
        parts = [name or self.name(entry), *([tests(spec)] if self.tests_vary else [])]
        parts += [f"{s.title} {s.text(spec)}" for s in self.varying if s.key != without]
        if self.differing_host:
            parts.append(facts(entry.run.host, self.differing_host))
        if self.differing_build:
            parts.append(facts(entry.run.build, self.differing_build))
        return ", ".join(parts)

    def common(self) -> str:
        """What all rows share: `org/name: 2 threads, n_batch 2048, ...`; without the depth, which is in the titles."""
        varying = {setting.key for setting in self.varying}
        said = {s.key: s.phrase(s.value(self.specs[0])) for s in SETTINGS if s.key not in varying and s.key != "depth"}
        spec = self.specs[0]
        if {"type_k", "type_v"} <= said.keys() and spec.type_k == spec.type_v:
            said |= {"type_k": f"{spec.type_k} KV cache", "type_v": ""}
        text = ", ".join(phrase for phrase in said.values() if phrase)
        return f"{self.model}: {text}" if self.model else text


def tests(spec: BenchSpec) -> str:
    """The tests of one configuration: `pp512 tg128`."""
    named = ((spec.n_prompt, f"pp{spec.n_prompt}"), (spec.n_gen, f"tg{spec.n_gen}"))
    both = spec.n_pg_prompt + spec.n_pg_gen
    return " ".join(name for n, name in (*named, (both, f"pp{spec.n_pg_prompt}+tg{spec.n_pg_gen}")) if n)


def facts(known: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Values of a host or a build, in one line; the name of a CPU without what says nothing."""
    shown: dict[str, Callable[[Any], str]] = {
        "cpu": lambda name: " ".join(_NOISE.sub(" ", name).split()),
        "n_cores": lambda n: f"{n} cores",
        "memory_bytes": units.size,
    }
    return ", ".join(shown.get(key, str)(known[key]) for key in keys if known.get(key) is not None) or units.DASH
