"""`check`: hold a bench run against an earlier one. Nothing is measured here; `recipes.check` does that."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from slmkit.core import levels, normalise, units, verdict
from slmkit.core.bench import OK, BenchRow, BenchRun, Block
from slmkit.core.check import INCONCLUSIVE, PASS, REGRESSION, UNMEASURED, Check, Judgement, Limits
from slmkit.core.verdict import Blocks, Change
from slmkit.errors import UsageError

RATES = ("pp", "tg", "pg")


def judge(baseline: BenchRun, now: BenchRun, limits: Limits) -> Check:
    """Each row of the baseline by each criterion. One that `now` lacks could not be measured; what has failed in the
    baseline is held against nothing, and what it lacks is not judged: both are said.

    Rates are taken at the speed that the machine had at the time, as its bandwidth and FLOP/s tell, so a slower machine
    is no regression; unlike machines of which these are not known are inconclusive. Of a machine with more than one
    speed, children of the same are held against each other. Raises `UsageError` where the two have nothing in common.
    """
    pairs = [(_undisturbed(old), _undisturbed(new)) for old, new in common(baseline, now)]
    unlike = normalise.unlike(baseline.host, now.host)
    held = [_Pair(baseline, now, old, new, bool(unlike)) for old, new in pairs]
    judgements = [judgement for pair in held for judgement in pair.judged(limits)]
    judgements += [_lacking(row) for row in lacks(now, baseline) if not row.failure]
    speeds = [pair.speeds for pair in held if pair.speeds]
    return Check(tuple(judgements), (*_notes(baseline, now, pairs, unlike), *dict.fromkeys(speeds)))


def common(baseline: BenchRun, now: BenchRun) -> list[tuple[BenchRow, BenchRow]]:
    """The rows of both that name the same model and have the same settings; raises `UsageError` for none."""
    known = {_key(row): row for row in baseline.rows}
    pairs = [(known[_key(row)], row) for row in now.rows if _key(row) in known]
    if not pairs:
        raise UsageError(f"nothing to compare: {_difference(baseline, now)}", hint=_MAKE_ONE)
    return pairs


def lacks(one: BenchRun, other: BenchRun) -> list[BenchRow]:
    """The rows of `other` that `one` has not."""
    known = {_key(row) for row in one.rows}
    return [row for row in other.rows if _key(row) not in known]


def joined(one: BenchRun, more: BenchRun) -> BenchRun:
    """Rows of the same model and settings become one with the children of both; a row that failed later has failed."""
    rows = {_key(row): row for row in one.rows}
    for row in more.rows:
        old = rows.get(_key(row), row)
        rows[_key(row)] = row if old is row else replace(old, blocks=(*old.blocks, *row.blocks), failure=row.failure)
    return replace(more, rows=tuple(rows.values()))


_MAKE_ONE = "measure a baseline of this: `slmkit bench REF --json > baseline.json`"


def name(ref: str) -> str:
    """What a model is known by in two runs: a file's name, wherever it lies, or the reference as it is."""
    return PurePath(ref).name if ref.lower().endswith(".gguf") else ref


def _key(row: BenchRow) -> tuple[Any, ...]:
    return (name(row.ref), *sorted(row.spec.conditions().items()))


def _difference(baseline: BenchRun, now: BenchRun) -> str:
    old, new = {name(row.ref): row for row in baseline.rows}, {name(row.ref): row for row in now.rows}
    if not set(old) & set(new):
        there, here = (", ".join(sorted(rows)) or "no rows" for rows in (old, new))
        return f"the baseline has {there}, the other run {here}"
    one, other = next((row, old[ref]) for ref, row in new.items() if ref in old)
    mine, theirs = one.spec.conditions(), other.spec.conditions()
    keys = [f"{key} {theirs[key]} there and {mine[key]} here" for key in mine if mine[key] != theirs[key]]
    return f"{one.ref} was measured with {', '.join(keys)}"


def _lacking(old: BenchRow) -> Judgement:
    """One that was measured then and is not there now."""
    spec = old.spec
    asked = {spec.pp: spec.n_prompt, spec.tg: spec.n_gen, spec.pg: spec.n_pg_prompt + spec.n_pg_gen}
    tests = " ".join(test for test, n in asked.items() if n)
    same = "no row of this model with these settings is in the run"
    return Judgement(name(old.ref), tests, "is measured", UNMEASURED, 0.0, None, None, None, None, same)


def _undisturbed(row: BenchRow) -> BenchRow:
    """With only the children that nothing disturbed, where these are enough to tell how far they differ."""
    quiet = sum(block.state == OK for block in row.blocks) >= verdict.FEW_PAIRS
    return replace(row, blocks=tuple(replace(block, counted=not quiet or block.state == OK) for block in row.blocks))


@dataclass(frozen=True)
class _Pair:
    """One row of the baseline and the same row now."""

    before: BenchRun
    after: BenchRun
    old: BenchRow
    new: BenchRow
    unlike: bool

    def judged(self, limits: Limits) -> Iterator[Judgement]:
        """By each criterion that applies."""
        spec = self.new.spec
        asked = {"pp": spec.n_prompt, "tg": spec.n_gen, "pg": spec.n_pg_prompt + spec.n_pg_gen}
        at_one_speed = self._at_one_speed
        for what in RATES:
            if asked[what]:
                yield at_one_speed._grown(what, getattr(spec, what), "slower", limits.max_slowdown)
        yield self._grown("rss", "peak RSS", "more", limits.max_rss_growth)
        yield self._grown("size", "size", "larger", limits.max_size_growth)
        if limits.min_tok_per_s is not None and spec.n_gen:
            yield self._at_least("tg", spec.tg, limits.min_tok_per_s)
        if limits.max_ttft_ns is not None and (spec.n_prompt or spec.prompt):
            yield self._at_most("ttft", "TTFT", limits.max_ttft_ns)

    @property
    def speeds(self) -> str:
        """That the machine had more than one; nothing where it had not."""
        known = () if self.unlike else levels.levels((self.old, self.new))
        if len(known) < 2 or not self._alike:
            return ""
        return f"the machine had {levels.told(known)}: children of one are compared"

    @property
    def _at_one_speed(self) -> _Pair:
        """With the children that ran while the machine was as fast by itself as with the other row; all if none did."""
        old, new = self._alike or (self.old, self.new)
        return replace(self, old=old, new=new)

    @property
    def _alike(self) -> tuple[BenchRow, BenchRow] | None:
        return (self.old, self.new) if self.unlike else levels.alike(self.old, self.new)

    def _grown(self, what: str, test: str, word: str, limit: float) -> Judgement:
        """Whether time or bytes have grown by more than a share."""
        old, new = verdict.blocks(self.old, what), verdict.blocks(self.new, what)
        template = Judgement(
            self.new.ref, test, f"at most {_percent(limit)} {word}", UNMEASURED, limit,
            self._shown(self.old, old), self._shown(self.new, new), None, None, "",
        )  # fmt: skip
        if reason := self._missing(old, new):
            return replace(template, text=reason)
        change = self._change(old, new)
        low, high = change.low - 1, change.high - 1
        found = PASS if high <= limit else REGRESSION if low > limit else INCONCLUSIVE
        text = verdict.difference(what, change, min(len(old.logs), len(new.logs))).text
        if reason := self._doubtful(what, found):
            found, text = INCONCLUSIVE, f"{text}, but {reason}"
        elif found == INCONCLUSIVE:
            text = f"{text}: between {_percent(low)} and {_percent(high)}"
        return replace(template, verdict=found, low=low, high=high, text=text)

    def _change(self, old: Blocks, new: Blocks) -> Change:
        if old.what == "size":
            return Change(new.logs[0] - old.logs[0], 0.0)
        if old.what == "rss" or not self._is_normalised(old.what):
            return verdict.unpaired(new, old)
        before, after = (_known(old.what, *side) for side in ((self.old, self.before), (self.new, self.after)))
        share = 1.0
        if not self.unlike:
            share = normalise.felt((old.logs, new.logs), (before, after), max(old.expected, new.expected))
        change = verdict.unpaired(_normalised(new, after, share), _normalised(old, before, share))
        unlike = 1.96 * math.sqrt(2) * normalise.UNLIKE_SPREAD if self.unlike else 0.0
        return Change(change.log, math.hypot(change.half, unlike, 0.0 if self._alike else levels.APART))

    def _is_normalised(self, what: str) -> bool:
        """Unlike machines always, where it is known how fast they are; one and the same where that was read again and
        again: a single reading would add more noise than it takes away.
        """
        sides = ((self.old, self.before), (self.new, self.after))
        read = [machine for row, run in sides for block in row.counted for machine in _beside(block, run)]
        if len({machine.get("n_threads") for machine in read}) != 1:
            return False  # what two threads read is no measure of one
        if self.unlike:
            return all(None not in _slowness(what, row, run) for row, run in sides)
        return all(block.machines for row, _ in sides for block in row.counted)

    def _doubtful(self, what: str, found: str) -> str:
        """Why a verdict does not hold. What disturbs makes slower: a pass now and a regression then are certain."""
        if what == "rss" and found != PASS and self.before.build.get("features") != self.after.build.get("features"):
            return "the engine uses other CPU features there, and then takes other memory"
        if what not in RATES:
            return ""
        if found == INCONCLUSIVE and not self._alike:
            known = levels.told(levels.levels((self.old, self.new)))
            return f"the machine had {known}, and too few processes had the same: try again"
        if found != PASS and self.new.state != OK:
            return f"it was {_state(self.new)}"
        if found != REGRESSION and self.old.state != OK:
            return f"the baseline was {_state(self.old)}"
        if found != PASS and self.unlike and not self._is_normalised(what):
            return "the machines are unlike, and how fast they are by themselves was not measured alike"
        return ""

    def _at_least(self, what: str, test: str, limit: float) -> Judgement:
        judgement, ns = self._absolute(what, test, f"at least {limit:g} tok/s", limit)
        if ns is None:
            return judgement
        low, high = 1e9 / ns[1], 1e9 / ns[0]
        return self._decided(judgement, low, high, low >= limit, high < limit, f"{low:.1f} to {high:.1f} tok/s")

    def _at_most(self, what: str, test: str, limit: float) -> Judgement:
        judgement, ns = self._absolute(what, test, f"at most {units.milliseconds(limit)}", limit)
        if ns is None:
            return judgement
        low, high = ns
        text = f"{units.milliseconds(low)} to {units.milliseconds(high)}"
        return self._decided(judgement, low, high, high <= limit, low > limit, text)

    def _decided(
        self, judgement: Judgement, low: float, high: float, is_good: bool, is_bad: bool, text: str
    ) -> Judgement:
        found = PASS if is_good else REGRESSION if is_bad else INCONCLUSIVE
        if found != PASS and self.new.state != OK:
            found, text = INCONCLUSIVE, f"{text}, but it was {_state(self.new)}"
        return replace(judgement, verdict=found, low=low, high=high, text=text)

    def _absolute(
        self, what: str, test: str, criterion: str, limit: float
    ) -> tuple[Judgement, tuple[float, float] | None]:
        """What is measured on this machine as it is: the interval in nanoseconds."""
        old, new = verdict.blocks(self.old, what), verdict.blocks(self.new, what)
        shown = self._shown(self.old, old), self._shown(self.new, new)
        reason = self._missing(new, new)
        judgement = Judgement(self.new.ref, test, criterion, UNMEASURED, limit, *shown, None, None, reason)
        if reason:
            return judgement, None
        centre, half = verdict.faster_half(new.logs), verdict.run_half(new)
        return judgement, (math.exp(centre - half), math.exp(centre + half))

    def _shown(self, row: BenchRow, found: Blocks) -> float | None:
        """What people read: rates, times and bytes as they were measured."""
        if not found.logs:
            return None
        value = math.exp(verdict.faster_half(found.logs))
        return 1e9 / value if found.what in RATES else value

    def _missing(self, old: Blocks, new: Blocks) -> str:
        if self.new.failure:
            return self.new.failure.message
        if not new.logs:
            return "it was not measured"
        return "" if old.logs else "the baseline has no such number"


def _normalised(found: Blocks, slow: Sequence[float], share: float) -> Blocks:
    """As on a machine of the speed 1, of which that share is felt; each child's reading may be wrong, too."""
    logs = tuple(log - share * s for log, s in zip(found.logs, slow, strict=True))
    noise = share * normalise.MEMORY_SHARE[found.what] * normalise.READING_SPREAD
    return Blocks(found.what, logs, math.hypot(found.expected, noise))


def _known(what: str, row: BenchRow, run: BenchRun) -> list[float]:
    return [slow for slow in _slowness(what, row, run) if slow is not None]


def _slowness(what: str, row: BenchRow, run: BenchRun) -> list[float | None]:
    """Of the machine before and after each child that measured this; else when the run began."""
    measured = [block for block in row.counted if getattr(block, f"{what}_ns")]
    found = [[normalise.slowness(what, machine) for machine in _beside(block, run)] for block in measured]
    return [statistics.fmean(known) if (known := [s for s in slow if s is not None]) else None for slow in found]


def _beside(block: Block, run: BenchRun) -> tuple[Mapping[str, Any], ...]:
    return block.machines or (run.machine,)


def _notes(
    baseline: BenchRun, now: BenchRun, pairs: Sequence[tuple[BenchRow, BenchRow]], unlike: Sequence[str]
) -> Iterator[str]:
    if unlike:
        yield f"the machines are unlike: {_named(unlike, baseline.host, now.host)}"
    builds = [key for key in {**baseline.build, **now.build} if baseline.build.get(key) != now.build.get(key)]
    if builds:
        yield f"the engines are unlike: {_named(builds, baseline.build, now.build)}"
    if baseline.host.get("system") != now.host.get("system") and "system" not in unlike:
        yield f"the same machine with another system: {_named(('system',), baseline.host, now.host)}"
    for row in lacks(now, baseline):
        if row.failure:
            yield f"{name(row.ref)} failed in the baseline ({row.failure.message}): nothing is held against it"
    for row in lacks(baseline, now):
        yield f"the baseline has no {name(row.ref)} with these settings ({row.spec.pp}, {row.spec.tg}): not judged"
    for old, new in pairs:
        if old.digest != new.digest:
            yield f"{new.ref} has other bytes than in the baseline"


def _named(keys: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} was {one.get(key, 'unknown')} and is {other.get(key, 'unknown')}" for key in keys)


def _state(row: BenchRow) -> str:
    return ": ".join((row.state, *row.reasons[:1]))


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
