"""`recommend`: which file of a model to take, by what is known of it; on request what is missing is measured first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.pick import LADDER
from slmkit.core.plan import ModelPlan
from slmkit.core.quality import Corpus, QualitySpec
from slmkit.core.quant import FLOATS, QUANT_TYPES
from slmkit.core.recommend import Candidate, Recommendation, Wish, choose, hopeful, worth_measuring
from slmkit.core.refs import ModelRef
from slmkit.core.units import size
from slmkit.errors import EngineMissingError, EngineTimeoutError, NotInRegistryError, SlmkitError, UsageError
from slmkit.host.devices import ATTAINABLE_SHARE, Device
from slmkit.ops import comparable, compare, locate
from slmkit.recipes import candidates, foresight
from slmkit.recipes.candidates import Elsewhere, Option, estimated
from slmkit.recipes.deadline import Deadline, Watched
from slmkit.recipes.pick import to_try
from slmkit.recipes.session import Session
from slmkit.recipes.trial import Trial
from slmkit.registry import runs
from slmkit.registry.store import is_whole


@dataclass(frozen=True)
class Measuring:
    """How what is missing is measured: until `budget_s` from the beginning on are over. What runs then is stopped; what
    is made and measured of it is kept.
    """

    bench: BenchSpec
    quality: QualitySpec
    corpus: Corpus
    budget_s: float


def recommend(
    ref: ModelRef, wish: Wish, session: Session, *, device: Device | None = None, measuring: Measuring | None = None
) -> Recommendation:
    """Choose among the usual types and all that is here of a model. What was measured counts, under the same conditions
    for all; where nothing was, the plan stands in and is marked as an estimate.

    Without a limit of memory it is that of `device`, or this machine's or container's. For another device speed is
    always an estimate.

    Raises `UsageError` for a single file, `EngineMissingError`, and what `plan` raises.
    """
    deadline = Deadline(measuring.budget_s) if measuring else None
    ref = locate.expand(ref)
    if ref.variant is not None:
        raise UsageError(f"{ref} is one file", hint=f"name the model: `slmkit recommend {ref.model}`")
    ram_bytes = wish.ram_bytes or (device.ram_bytes if device else None)
    files = _files(ref, session)
    planned = _plan(ref, files, wish, ram_bytes, session)
    model = candidates.model_of(ref, session)
    options = list(_options(planned, files, session))
    wish = replace(wish, ram_bytes=planned.ram_bytes, n_ctx=planned.contexts[0].n_ctx)
    notes = [*planned.notes, *_device_notes(device)]
    judgements = [each.run for each in runs.quality_runs(session.registry.home)[0]]
    if measuring is None or deadline is None:
        benched = compare.measured_here(files, session.registry)
        alike = comparable.choose(files, judgements)
        elsewhere = Elsewhere(comparable.newest(files, judgements))
        choice = choose(estimated(options, benched, alike.judged, planned, model, device, elsewhere), wish)
        corpus_name = alike.terms.corpus_name if alike.terms else None
        return Recommendation(model, choice, _title(device), corpus_name, notes=tuple(notes))
    elsewhere = Elsewhere(comparable.newest(files, judgements), compare.measured_here(files, session.registry))
    measurer = _Measurer(ref, options, planned, measuring, deadline, device, session, elsewhere)
    left = measurer.run(wish)
    return Recommendation(
        model,
        choose(measurer.candidates, wish),
        _title(device),
        measuring.corpus.name,
        measured=tuple(measurer.measured),
        open=tuple(left),
        notes=tuple(notes),
    )


class _Measurer:
    """Measures what may still win, the most promising first."""

    def __init__(
        self,
        ref: ModelRef,
        options: Sequence[Option],
        planned: ModelPlan,
        measuring: Measuring,
        deadline: Deadline,
        device: Device | None,
        session: Session,
        elsewhere: Elsewhere,
    ) -> None:
        self._deadline = deadline
        self._spent: list[tuple[int, float]] = []
        types = [QUANT_TYPES[option.plan.variant] for option in options if option.plan.variant in QUANT_TYPES]
        self._options, self._planned, self._device = options, planned, device
        self._elsewhere = elsewhere
        self._failures: dict[str, str] = {}
        self._session = session
        self.measured: list[str] = []
        build = engine.build()
        here = [option.artifact for option in options if option.artifact]
        bench, corpus, quality = measuring.bench, measuring.corpus, measuring.quality
        self._trial = Trial(ref, types, planned, build, bench, corpus, quality, session, here=here)
        self._trial.session = replace(session, progress=Watched(session.progress, deadline))  # looking is never stopped

    @property
    def candidates(self) -> list[Candidate]:
        """As they stand now."""
        made, trial = self._trial.artifacts, self._trial
        options = [Option(o.plan, made.get(o.plan.variant, o.artifact)) for o in self._options]
        known = (trial.benched, trial.judged, self._planned, trial.model, self._device, self._elsewhere)
        found = estimated(options, *known)
        return [replace(c, failure=self._failures.get(c.name)) for c in found]

    def run(self, wish: Wish) -> list[str]:
        """Until nothing can win any more, or the time is over; the names of what was not measured for that reason: what
        might still win and would not end in time is not begun, and what does not end is stopped.
        """
        tried: set[str] = set()
        late: list[str] = []
        while True:
            every = self.candidates
            unmeasured = [c for c in every if c.name not in tried and self._lacks(c)]
            best = worth_measuring(unmeasured, every, wish)
            if best is None:
                return late
            tried.add(best.name)
            if self._expected_s(best) >= self._deadline.left_s or not self._measure(best):
                late.append(best.name)
            if not self._deadline.left_s:
                return [*late, *(c.name for c in hopeful(unmeasured, every, wish) if c.name not in late)]

    def _expected_s(self, candidate: Candidate) -> float:
        """By what was measured here: as long as the longest, and longer as it is larger; 0 before anything was."""
        return max((seconds * max(1.0, candidate.size_bytes / n) for n, seconds in self._spent), default=0.0)

    def _lacks(self, candidate: Candidate) -> bool:
        """Whether there is anything to measure here: not the speed of another device."""
        return not (candidate.is_proven if self._device else candidate.is_measured)

    def _measure(self, candidate: Candidate) -> bool:
        """Make it, where it is not here, and measure it; whether that came to an end in time."""
        name, trial = candidate.name, self._trial
        quants = [QUANT_TYPES[name]] if name in QUANT_TYPES else []
        started = time.monotonic()
        try:
            for artifact in trial.make(quants):
                self._session.progress.say(f"{artifact.ref} is made: {size(artifact.size_bytes)}")
                if artifact.variant != name:  # the float file, which is made only once
                    started = time.monotonic()
            self._deadline.check()  # where making was stopped, that is no failure of this type
            trial.judge(name, timeout_s=self._deadline.left_s)
            if self._device is None:
                trial.bench(name, timeout_s=self._deadline.left_s)
        except EngineMissingError:
            raise
        except SlmkitError as error:
            if isinstance(error, EngineTimeoutError) and not self._deadline.left_s:
                return False
            self._failures[name] = error.message
            return True
        self._spent.append((candidate.size_bytes, time.monotonic() - started))
        measured = trial.artifacts.get(name)
        row = trial.row(measured) if measured else trial.row_of(QUANT_TYPES[name])
        if failure := row.candidate.failure:
            self._failures[name] = failure
        else:
            self.measured.append(candidate.ref)
        return True


def _files(ref: ModelRef, session: Session) -> list[Artifact]:
    """What is here of a model, but for float files and the checkpoint."""
    try:
        found = locate.ggufs(ref, session.registry, session.progress)
    except NotInRegistryError:
        return []
    return [a for a in found if a.variant not in FLOATS and is_whole(a)]


def _plan(ref: ModelRef, files: Sequence[Artifact], wish: Wish, ram_bytes: int | None, session: Session) -> ModelPlan:
    """Of the usual types and those of the files. A model of which only quantized files are here is planned by one."""
    names = [a.variant for a in files if a.variant in QUANT_TYPES]
    types = [QUANT_TYPES[name] for name in dict.fromkeys((*LADDER, *names)) if name]
    n_ctx = [wish.n_ctx] if wish.n_ctx else ()
    try:
        return foresight.plan(ref, session, types=types, n_ctx=n_ctx, ram_bytes=ram_bytes)
    except NotInRegistryError:
        if not files:
            raise
        return foresight.plan(ModelRef.parse(files[0].ref), session, n_ctx=n_ctx, ram_bytes=ram_bytes)


def _options(planned: ModelPlan, files: Sequence[Artifact], session: Session) -> Iterator[Option]:
    """The files, whatever they are called, and those types of the plan that come to something of their own. Their speed
    is estimated by the same bandwidth: measured twice it is not the same.
    """
    by_name = {a.variant: a for a in files}
    types = [QUANT_TYPES[row.variant] for row in planned.types if row.variant in QUANT_TYPES]
    wanted = {quant.name for quant in to_try(planned, types)[0]}
    rows = {row.variant: row for row in planned.types if row.size_bytes}
    for name, row in rows.items():
        itself = any(a.size_bytes == row.size_bytes and (a.variant or "").startswith(f"{name}-") for a in files)
        if name in by_name or (name in wanted and name not in FLOATS and not itself):
            yield Option(row, by_name.get(name))
    n_ctx = [planned.contexts[0].n_ctx]
    for artifact in files:
        if artifact.variant not in rows:
            ref = ModelRef.parse(artifact.ref)
            rate = planned.bandwidth_bytes_per_s
            plan = foresight.plan(ref, session, n_ctx=n_ctx, ram_bytes=planned.ram_bytes, bandwidth_bytes_per_s=rate)
            yield Option(plan.types[0], artifact)


def _title(device: Device | None) -> str | None:
    return device.title if device else None


def _device_notes(device: Device | None) -> Iterator[str]:
    if device:
        more = f" ({device.note})" if device.note else ""
        yield (
            f"{device.title}: {device.bandwidth_bytes_per_s / 1e9:.1f} GB/s{more}, of which a program gets about "
            f"{ATTAINABLE_SHARE:.0%}; {device.source}"
        )
