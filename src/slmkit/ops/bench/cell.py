"""A row in the making: what its children have measured so far, and whether that is enough."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from slmkit.core import levels, verdict
from slmkit.core.artifact import Artifact
from slmkit.core.bench import OK, BenchRow, BenchSpec, Block, Failure
from slmkit.errors import GgufError
from slmkit.formats.gguf.hollow import read_hollow

PER_CHILD = 3
"""Repetitions that one child measures: then the next row has its turn."""
LEAST_CHILDREN = 2
"""Of each row: what differs from one process to the next (where its memory lies) would be missed in one. Where
something disturbed them, at most so many are measured once more."""
PAIRS = 5
"""Children of each row at least when two are held against each other: the pairs are what an interval comes from."""


@dataclass(frozen=True)
class Effort:
    """When to stop: the 95 % confidence interval of every rate is within ± `precision` of it, after
    `BenchSpec.repetitions`, or when a row has taken `max_time_s`. Each row has at least `least_children`. With
    `in_step` none stops before all may: they are to be compared, child by child.
    """

    precision: float = 0.02
    max_time_s: float = 300.0
    least_children: int = LEAST_CHILDREN
    in_step: bool = False


@dataclass
class Cell:
    """One artifact under one spec; `spent_s` is what its children have taken."""

    artifact: Artifact
    plain: BenchRow
    effort: Effort
    blocks: list[Block] = field(default_factory=list)
    failure: Failure | None = None
    spent_s: float = 0.0

    @classmethod
    def of(cls, artifact: Artifact, spec: BenchSpec, effort: Effort) -> Cell:
        """Nothing measured yet."""
        bytes_per_token = None
        with suppress(GgufError, OSError):  # the engine will say what is wrong with it
            bytes_per_token = read_hollow(artifact.path).bytes_per_token
        n_params = artifact.facts.get("n_params")
        row = BenchRow(artifact.ref, artifact.digest, artifact.size_bytes, spec)
        return cls(artifact, replace(row, n_params=n_params, bytes_per_token=bytes_per_token), effort)

    @property
    def spec(self) -> BenchSpec:
        """What is measured."""
        return self.plain.spec

    @property
    def n_threads(self) -> int:
        """Of its processes."""
        assert self.spec.n_threads, "settled before"
        return self.spec.n_threads

    @property
    def name(self) -> dict[str, object]:
        """What tells it from the others, in JSON."""
        return {"digest": self.plain.digest, "ref": self.plain.ref, "spec": asdict(self.spec)}

    @property
    def n_done(self) -> int:
        """Repetitions so far."""
        return sum(max(len(b.pp_ns), len(b.tg_ns), len(b.pg_ns), len(b.ttft_ns)) for b in self.blocks)

    @property
    def n_next(self) -> int:
        """Repetitions of the next child; when everything is done, and was disturbed, those of one child again."""
        missing = self.spec.repetitions - self.n_done
        return min(PER_CHILD, missing if missing > 0 else self.spec.repetitions)

    @property
    def n_steps(self) -> int:
        """Samples that are missing at least: more follow where these vary."""
        n_repetitions = min(self.spec.repetitions, PER_CHILD * self.effort.least_children) - self.n_done
        return max(0, n_repetitions) * self._n_tests

    @property
    def n_next_steps(self) -> int:
        """Samples of the next child."""
        return self.n_next * self._n_tests

    @property
    def _n_tests(self) -> int:
        spec = self.spec
        asked = (spec.n_prompt or spec.prompt, spec.n_prompt, spec.n_gen, spec.n_pg_prompt + spec.n_pg_gen)
        return sum(1 for test in asked if test)

    @property
    def is_enough(self) -> bool:
        """Nothing more is to be measured, unless it was disturbed."""
        if self.failure or self.n_done >= self.spec.repetitions:
            return True
        n_children = len(self.blocks)
        if n_children and self.spent_s * (n_children + 1) / n_children > self.effort.max_time_s:
            return True  # one more would take too long
        return n_children >= self.effort.least_children and self._is_precise

    @property
    def n_again(self) -> int:
        """Children that are to be measured once more, because something disturbed so many."""
        return 0 if self.failure else min(LEAST_CHILDREN, max(0, self._n_needed - self._n_quiet))

    @property
    def row(self) -> BenchRow:
        """As it stands. Where enough children were undisturbed the others do not count."""
        enough = self._n_quiet >= self._n_needed
        blocks = tuple(replace(block, counted=block.state == OK or not enough) for block in self.blocks)
        return replace(self.plain, blocks=blocks, failure=self.failure)

    @property
    def _n_quiet(self) -> int:
        return sum(block.state == OK for block in self.blocks)

    @property
    def _n_needed(self) -> int:
        """Undisturbed children that a row can rest on; as many as it has when fewer repetitions were asked for."""
        return min(self.effort.least_children, math.ceil(self.spec.repetitions / PER_CHILD))

    @property
    def settled(self) -> BenchRow:
        """The finished row, with what has to be said of it."""
        row = self.row
        rough = [
            f"{name} ± {width:.1%}"
            for name, width in self._widths.items()
            if width is not None and width > self.effort.precision
        ]
        if row.failure or not rough:
            return row
        known = levels.levels([row])
        advice = "raise -r or --max-time, or close other programs"
        if len(known) > 1:
            advice = f"the machine had {levels.told(known)}: raise -r"
        return replace(row, warnings=(f"{row.ref}: known only to {', '.join(rough)}: {advice}",))

    @property
    def _is_precise(self) -> bool:
        return all(width is not None and width <= self.effort.precision for width in self._widths.values())

    @property
    def _widths(self) -> dict[str, float | None]:
        """Of each rate half its 95 % interval, as a share of it."""
        row = self.row
        names = {"pp": self.spec.pp, "tg": self.spec.tg, "pg": self.spec.pg}
        return {name: verdict.known_to(row, test) for test, name in names.items() if row.samples(test)}
