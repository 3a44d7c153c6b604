"""What is known of a file, put together: from its plan, from the file itself, from what was measured of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from slmkit.core import stats
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow
from slmkit.core.compare import Judged
from slmkit.core.divergence import BROKEN
from slmkit.core.expected_kld import expected_kld
from slmkit.core.plan import ModelPlan, TypePlan
from slmkit.core.recommend import BOUND, ESTIMATED, OTHER_TEXT, Candidate
from slmkit.core.refs import ModelRef
from slmkit.host.devices import Device
from slmkit.ops import adopt
from slmkit.recipes.session import Session


@dataclass(frozen=True)
class Option:
    """Something that may be taken: what is planned of it, and its file, if that is here."""

    plan: TypePlan
    artifact: Artifact | None


@dataclass(frozen=True)
class Elsewhere:
    """What was measured of the files under other conditions, by digest: no more than a hint of what to expect."""

    judged: Mapping[str, Judged] = field(default_factory=dict)
    benched: Mapping[str, BenchRow] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reached:
    """The share of what the bandwidth allows that was measured of a file, and its name and speed."""

    share: float
    said: str


def model_of(ref: ModelRef, session: Session) -> str:
    """What the registry calls the model of a reference (no alias)."""
    if ref.kind == "path":
        return adopt.describe(Path(ref.name), session.progress, hashed=False).model
    return ref.model


def measured(
    artifact: Artifact,
    plan: TypePlan | None,
    bench: BenchRow | None,
    judged: Judged | None,
    *,
    is_base: bool = False,
    failure: str | None = None,
    here: bool = True,
) -> Candidate:
    """A file that was made: what was measured of it, and the memory that its plan says, or that it took when that was
    more. The base has lost nothing against itself.
    """
    scores = judged.scores if judged else None
    kld = scores.kld if scores else None
    return Candidate(
        name=artifact.variant or "",
        ref=artifact.ref,
        size_bytes=artifact.size_bytes,
        bpw=artifact.facts.get("bpw") or (plan.bpw if plan else None),
        memory_bytes=_most(planned_bytes(plan), _taken_bytes(bench)),
        tok_per_s=stats.mean(bench.tg_rates) if bench else None,
        kld=0.0 if is_base else kld.value if kld else None,
        kld_error=kld.error if kld else None,
        verdict=judged.verdict if judged else None,
        state=bench.state if bench else "",
        failure=failure,
        here=here,
    )


def estimated(
    options: Sequence[Option],
    benched: Mapping[str, BenchRow],
    judged: Mapping[str, Judged],
    planned: ModelPlan,
    model: str,
    device: Device | None,
    elsewhere: Elsewhere,
) -> list[Candidate]:
    """What is known of each, and estimates where nothing is: the KLD as it was measured `elsewhere`, on other text, or
    by bits per weight; the speed by the share that another file reached of what the bandwidth allows, or as all of that
    at most; of another device always by its bandwidth.
    """
    found = [
        _as_judged_elsewhere(_as_known(option, model, benched, judged), option, elsewhere.judged) for option in options
    ]
    points = [(c.bpw, c.kld) for c in found if c.bpw and c.kld]
    reached = _reached(options, benched or elsewhere.benched)
    return [
        _estimated(c, option.plan, planned, points, reached, device) for c, option in zip(found, options, strict=True)
    ]


def _as_known(option: Option, model: str, benched: Mapping[str, BenchRow], judged: Mapping[str, Judged]) -> Candidate:
    plan, artifact = option.plan, option.artifact
    if artifact:
        return measured(artifact, plan, benched.get(artifact.digest), judged.get(artifact.digest))
    memory_bytes = planned_bytes(plan)
    ref = f"{model}:{plan.variant}"
    return Candidate(plan.variant, ref, plan.size_bytes or 0, plan.bpw, memory_bytes, state="", here=False)


def _as_judged_elsewhere(candidate: Candidate, option: Option, elsewhere: Mapping[str, Judged]) -> Candidate:
    judged = elsewhere.get(option.artifact.digest) if option.artifact else None
    if candidate.kld is not None or candidate.verdict is not None or judged is None:
        return candidate
    broken = BROKEN if judged.verdict == BROKEN else None
    return replace(candidate, kld=judged.kld, quality=OTHER_TEXT, verdict=broken)


def _estimated(
    candidate: Candidate,
    plan: TypePlan,
    planned: ModelPlan,
    points: Sequence[tuple[float, float]],
    reached: _Reached | None,
    device: Device | None,
) -> Candidate:
    if device and plan.read_bytes:
        rate = device.attainable_bytes_per_s / plan.read_bytes
        candidate = replace(candidate, tok_per_s=rate, speed=ESTIMATED, state="")
    elif candidate.tok_per_s is None and plan.tg_estimate_tok_per_s:
        rate = plan.tg_estimate_tok_per_s
        if reached:
            candidate = replace(candidate, tok_per_s=rate * reached.share, speed=ESTIMATED, speed_from=reached.said)
        else:
            candidate = replace(candidate, tok_per_s=rate, speed=BOUND)
    if candidate.kld is None and candidate.verdict != BROKEN and candidate.bpw:
        kld = expected_kld(candidate.bpw, planned.n_params, points)
        candidate = replace(candidate, kld=kld, quality=ESTIMATED)
    return candidate


def _reached(options: Sequence[Option], benched: Mapping[str, BenchRow]) -> _Reached | None:
    """Of the files of this model that were measured the one whose share is in the middle."""
    shares = [
        (rate / option.plan.tg_estimate_tok_per_s, option.artifact.variant or "", rate)
        for option in options
        if option.artifact and (row := benched.get(option.artifact.digest))
        if (rate := stats.mean(row.tg_rates)) and option.plan.tg_estimate_tok_per_s
    ]
    if not shares:
        return None
    share, name, rate = statistics.median_low(shares)
    return _Reached(share, f"{name}'s {rate:.1f} tok/s here")


def planned_bytes(plan: TypePlan | None) -> int | None:
    """What loading takes with the first of the plan's contexts, by the engine's own sums."""
    memory = plan.contexts[0].memory if plan and plan.contexts else None
    return memory.total_bytes if memory else None


def row_of(plan: ModelPlan, variant: str) -> TypePlan | None:
    """The plan of one type."""
    return next((row for row in plan.types if row.variant == variant), None)


def _taken_bytes(bench: BenchRow | None) -> int | None:
    """The highest resident memory, without the interpreter and the library."""
    memory = bench.memory if bench else None
    if memory is None or memory.peak_rss is None:
        return None
    return memory.peak_rss - (memory.baseline_rss or 0)


def _most(*sizes_bytes: int | None) -> int | None:
    return max((size for size in sizes_bytes if size is not None), default=None)
