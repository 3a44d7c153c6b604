"""The gate's judge, on runs made by hand and on timings that were recorded on a busy machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Block, Failure, Memory
from slmkit.core.check import INCONCLUSIVE, PASS, REGRESSION, UNMEASURED, Check, Judgement, Limits
from slmkit.errors import UsageError
from slmkit.ops.check import joined, judge

SPEC = BenchSpec(n_prompt=128, n_gen=32, n_threads=2)
HOST = {"cpu": "One", "n_cores": 2, "memory_bytes": 4 << 30, "system": "Linux 6"}
MACHINE = {"n_threads": 2, "bandwidth_bytes_per_s": 2e10, "flop_per_s": 4e11, "kernel_ns": 900_000}
MIB = 1 << 20
WOBBLE = (1.0, 1.004, 0.997, 1.002, 0.999, 1.001)


def row(slow: float = 1.0, *, n: int = 6, rss: float = 200, size: int = 90 * MIB, **block: Any) -> BenchRow:
    """Children that took `slow` times as long as 0.1 s and 0.2 s."""
    children = tuple(
        Block(
            pp_ns=tuple(round(1e8 * slow * f * g) for g in WOBBLE[:3]),
            tg_ns=tuple(round(2e8 * slow * f * g) for g in WOBBLE[:3]),
            ttft_ns=tuple(round(1.1e8 * slow * f * g) for g in WOBBLE[:3]),
            memory=Memory(0, round(rss * MIB), None, None),
            **block,
        )
        for f in (WOBBLE * n)[:n]
    )
    return BenchRow("org/m:Q4_0", "sha256:x", size, SPEC, children)


def run(*rows: BenchRow, **values: Any) -> BenchRun:
    known: dict[str, Any] = {"host": HOST, "build": {"engine": "1", "features": "AVX2"}, "machine": MACHINE}
    return BenchRun("2026-01-01T00:00:00+00:00", rows=rows, **{**known, **values})


def verdicts(check: Check) -> dict[str, str]:
    return {judgement.test: judgement.verdict for judgement in check.judgements}


def of(check: Check, test: str) -> Judgement:
    return next(judgement for judgement in check.judgements if judgement.test == test)


# ------------------------------------------------------------------ verdicts


def test_a_repeat_passes() -> None:
    found = judge(run(row()), run(row()), Limits())
    assert verdicts(found) == {"pp128": PASS, "tg32": PASS, "peak RSS": PASS, "size": PASS}
    assert (found.verdict, found.summary, found.notes) == (PASS, "4 pass", ())


def test_slower_is_a_regression_and_faster_is_not() -> None:
    slower = judge(run(row()), run(row(1.08)), Limits())
    assert verdicts(slower) == {"pp128": REGRESSION, "tg32": REGRESSION, "peak RSS": PASS, "size": PASS}
    assert of(slower, "tg32").text.startswith("8.0 % ± ")
    assert of(slower, "tg32").baseline == pytest.approx(160, rel=0.01)
    assert judge(run(row(1.08)), run(row()), Limits()).verdict == PASS


@pytest.mark.parametrize("growth", [0.0, 0.02, 0.05, 0.08, 0.2])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.1])
def test_the_verdict_is_where_the_interval_lies(growth: float, limit: float) -> None:
    found = of(judge(run(row()), run(row(1 + growth)), Limits(max_slowdown=limit)), "pp128")
    assert found.low is not None
    assert found.high is not None
    assert found.low < growth < found.high
    sides = {PASS: found.high <= limit, REGRESSION: found.low > limit, INCONCLUSIVE: found.low <= limit < found.high}
    assert [verdict for verdict, holds in sides.items() if holds] == [found.verdict]


def test_memory_and_size() -> None:
    larger = judge(run(row()), run(row(rss=220, size=92 * MIB)), Limits())
    assert verdicts(larger) == {"pp128": PASS, "tg32": PASS, "peak RSS": REGRESSION, "size": REGRESSION}
    assert of(larger, "size").text == "2.2 % larger"
    just = judge(run(row()), run(row(rss=220, size=92 * MIB)), Limits(max_rss_growth=0.12, max_size_growth=0.03))
    assert just.verdict == PASS


def test_absolute_limits_need_no_better_baseline() -> None:
    slow = judge(run(row(2)), run(row(2)), Limits(min_tok_per_s=120, max_ttft_ns=2e8))
    assert [j.verdict for j in slow.judgements if j.criterion.startswith(("at least", "at most 200"))] == [
        REGRESSION
    ] * 2
    fine = judge(run(row()), run(row()), Limits(min_tok_per_s=120, max_ttft_ns=2e8))
    assert fine.verdict == PASS
    close = judge(run(row()), run(row()), Limits(min_tok_per_s=160.1))
    assert (close.verdict, close.judgements[-1].verdict) == (INCONCLUSIVE, INCONCLUSIVE)


def test_what_could_not_be_measured() -> None:
    failed = replace(row(), blocks=(), failure=Failure("engine.crashed", "it crashed"))
    found = judge(run(row()), run(failed), Limits(min_tok_per_s=1, max_ttft_ns=1e9))
    assert {(j.verdict, j.text) for j in found.judgements} == {(UNMEASURED, "it crashed")}
    unread = replace(row(), blocks=tuple(replace(block, memory=None) for block in row().blocks))
    assert of(judge(run(unread), run(row()), Limits()), "peak RSS").text == "the baseline has no such number"
    assert of(judge(run(row()), run(unread), Limits()), "peak RSS").verdict == UNMEASURED


def test_a_certain_regression_weighs_more_than_what_was_not_measured() -> None:
    both = judge(run(row()), run(replace(row(1.5), blocks=row(1.5, rss=0).blocks)), Limits())
    assert {UNMEASURED, REGRESSION} <= set(verdicts(both).values())
    assert both.verdict == REGRESSION


# ------------------------------------------------------------------ disturbed, unlike


def test_a_disturbed_run_proves_no_regression_but_may_pass() -> None:
    noisy = row(1.5, state="noisy", reasons=("other programs used 90 % of a core",))
    found = of(judge(run(row()), run(noisy), Limits()), "tg32")
    assert found.verdict == INCONCLUSIVE
    assert found.text.endswith("but it was noisy: other programs used 90 % of a core")
    assert judge(run(row()), run(replace(noisy, blocks=row(state="noisy").blocks)), Limits()).verdict == PASS
    absolute = judge(run(row()), run(noisy), Limits(min_tok_per_s=150)).judgements[-1]
    assert absolute.verdict == INCONCLUSIVE


def test_a_disturbed_baseline_lets_nothing_pass() -> None:
    noisy = run(row(state="noisy"))
    assert of(judge(noisy, run(row()), Limits()), "tg32").verdict == INCONCLUSIVE
    assert of(judge(noisy, run(row(1.3)), Limits()), "tg32").verdict == REGRESSION


def test_quiet_children_are_enough() -> None:
    mixed = replace(row(), blocks=(*row(n=4).blocks, *row(3.0, n=4, state="noisy").blocks))
    assert judge(run(row()), run(mixed), Limits()).verdict == PASS


def beside(slow: Sequence[float], bandwidth: Sequence[float], flop: float = 1.0, *, host: Any = HOST) -> BenchRun:
    """Children, each with what its machine could do at the time."""
    children: list[Block] = []
    for child, share in zip(slow, bandwidth, strict=True):
        machine = {**MACHINE, "bandwidth_bytes_per_s": 2e10 * share, "flop_per_s": 4e11 * flop}
        children += row(child, n=1, seen={"machine": machine}).blocks
    return run(replace(row(), blocks=tuple(children)), host=host)


def test_a_machine_whose_memory_is_slower_today_is_no_regression() -> None:
    base = beside([1.0] * 8, [1.0] * 8)
    today = beside([0.8**-0.65] * 8, [0.8] * 8)  # tg as slow as memory makes it; pp should not have become slower
    found = judge(base, today, Limits())
    assert (of(found, "tg32").verdict, of(found, "pp128").verdict) == (PASS, REGRESSION)


def test_a_slower_runner_is_no_regression() -> None:
    other = {**HOST, "cpu": "Two"}
    slower = beside([2.0] * 12, [0.5] * 12, 0.5, host=other)
    found = judge(beside([1.0] * 12, [1.0] * 12), slower, Limits(max_slowdown=0.15))
    assert (of(found, "tg32").verdict, of(found, "pp128").verdict) == (PASS, PASS)
    assert found.notes == ("the machines are unlike: cpu was One and is Two",)
    worse = beside([2.8] * 12, [0.5] * 12, 0.5, host=other)
    assert judge(beside([1.0] * 12, [1.0] * 12), worse, Limits()).verdict == REGRESSION


def test_unlike_machines_of_unknown_speed_are_inconclusive() -> None:
    other = {**HOST, "cpu": "Two", "n_cores": 4}
    found = judge(run(row(), machine={}), run(row(1.5), host=other), Limits())
    assert of(found, "tg32").verdict == INCONCLUSIVE
    assert "how fast they are by themselves was not measured" in of(found, "tg32").text
    assert found.notes == ("the machines are unlike: cpu was One and is Two, n_cores was 2 and is 4",)


def test_another_engine_and_other_bytes_are_named() -> None:
    new = replace(row(rss=300), digest="sha256:other")
    found = judge(run(row()), run(new, build={"engine": "2", "features": "AVX512"}), Limits())
    assert found.notes == (
        "the engines are unlike: engine was 1 and is 2, features was AVX2 and is AVX512",
        "org/m:Q4_0 has other bytes than in the baseline",
    )
    assert of(found, "peak RSS").verdict == INCONCLUSIVE
    assert "other CPU features" in of(found, "peak RSS").text


# ------------------------------------------------------------------ what belongs together


def test_nothing_in_common_is_an_error_that_says_what_differs() -> None:
    with pytest.raises(UsageError, match=r"n_gen 32 there and 64 here"):
        judge(run(row()), run(replace(row(), spec=replace(SPEC, n_gen=64))), Limits())
    with pytest.raises(UsageError, match=r"the baseline has org/m:Q4_0, the other run org/other:Q4_0"):
        judge(run(row()), run(replace(row(), ref="org/other:Q4_0")), Limits())
    with pytest.raises(UsageError, match="the baseline has no rows"):
        judge(run(), run(row()), Limits())


def test_what_the_baseline_has_and_the_run_lacks_does_not_pass() -> None:
    deep, other = replace(row(), spec=replace(SPEC, depth=4096)), replace(row(), ref="org/n:Q4_0")
    found = judge(run(row(), deep, other), run(row()), Limits())
    assert (found.verdict, found.summary) == (UNMEASURED, "2 could not measure, 4 pass")
    lacking = [j for j in found.judgements if j.verdict == UNMEASURED]
    assert [(j.ref, j.test) for j in lacking] == [
        ("org/m:Q4_0", f"{deep.spec.pp} {deep.spec.tg}"),
        ("org/n:Q4_0", "pp128 tg32"),
    ]
    more = judge(run(row()), run(row(), other), Limits())
    assert more.verdict == PASS
    assert more.notes == ("the baseline has no org/n:Q4_0 with these settings (pp128, tg32): not judged",)
    failed = replace(other, blocks=(), failure=Failure("engine.crashed", "it crashed"))
    crashed = judge(run(row(), failed), run(row()), Limits())
    assert crashed.verdict == PASS
    assert crashed.notes == ("org/n:Q4_0 failed in the baseline (it crashed): nothing is held against it",)


def test_an_update_makes_no_other_machine() -> None:
    updated = {**HOST, "system": "Linux 7", "memory_bytes": (4 << 30) - 4096}
    found = judge(run(row()), run(row(), host=updated), Limits())
    assert found.verdict == PASS
    assert of(found, "tg32").text == of(judge(run(row()), run(row()), Limits()), "tg32").text
    assert found.notes == ("the same machine with another system: system was Linux 6 and is Linux 7",)
    unlike = judge(run(row()), run(row(), host={**updated, "memory_bytes": 8 << 30}), Limits())
    assert unlike.notes[0].startswith("the machines are unlike: memory_bytes")


def test_effort_is_not_a_setting_and_a_file_may_lie_elsewhere() -> None:
    here = replace(row(), ref="./m.gguf", spec=replace(SPEC, repetitions=99, timeout_s=5))
    assert judge(run(replace(row(), ref="/there/m.gguf")), run(here), Limits()).verdict == PASS


def test_joined_runs_have_the_children_of_both() -> None:
    other = replace(row(n=2), ref="org/other:Q4_0")
    both = joined(run(row(n=2), other), run(row(n=3)))
    assert [(r.ref, len(r.blocks)) for r in both.rows] == [("org/m:Q4_0", 5), ("org/other:Q4_0", 2)]
    failed = replace(row(), blocks=(), failure=Failure("engine.crashed", "it crashed"))
    assert joined(run(row()), run(failed)).rows[0].failure


def test_limits_below_nothing() -> None:
    with pytest.raises(UsageError, match=r"max_slowdown is -0\.1"):
        Limits(max_slowdown=-0.1)


# ------------------------------------------------------------------ recorded on a busy machine

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "busy-machine.json").read_text())
"""62 children of SmolLM2-135M Q4_0 (pp128, tg32, 2 threads), one after the other, on a virtual machine of 2 cores on
which others ran tests, and which shares its memory with other guests: what its memory gave halved within minutes."""


def recorded(first: int, n: int, slow: float = 1.0) -> BenchRun:
    children = [
        Block(
            pp_ns=tuple(round(ns * slow) for ns in child["pp_ns"]),
            tg_ns=tuple(round(ns * slow) for ns in child["tg_ns"]),
            memory=Memory(0, 200 * MIB, None, None),
            seen={"machine": {**MACHINE, **{k: child[k] for k in ("bandwidth_bytes_per_s", "flop_per_s")}}},
        )
        for child in RECORDED[first : first + n]
    ]
    return run(replace(row(), blocks=tuple(children)))


@pytest.mark.parametrize("n", [10, 20])
def test_recorded_timings(n: int) -> None:
    """20 pairs of runs at different times. Prompts are certain even there; generation is never called wrongly."""
    starts = [(a, b) for a in range(0, 62 - n, 3) for b in range(0, 62 - n, 4) if abs(a - b) >= n]
    pairs = starts[:: max(1, len(starts) // 20)][:20]
    plain = [judge(recorded(a, n), recorded(b, n), Limits()) for a, b in pairs]
    slow = [judge(recorded(a, n), recorded(b, n, 1.08), Limits()) for a, b in pairs]
    assert len(pairs) == 20
    assert sum(of(found, "pp128").verdict == PASS for found in plain) >= 19
    assert sum(found.verdict == REGRESSION for found in slow) >= 19
    assert sum(of(found, "tg32").verdict == REGRESSION for found in plain) <= 1
    assert sum(of(found, "tg32").verdict == PASS for found in slow) <= 1


# ------------------------------------------------------------------ a machine with two speeds

NEAR, FAR = 3.6e10, 6.4e10
"""Bytes per second of its memory: with the cores side by side, where a prompt is quicker, and apart."""


def moved(*bandwidths: float, slow: float = 1.0) -> BenchRow:
    """A child at each of these."""
    whole = row(slow, n=len(bandwidths))
    apart = 670 / 575
    blocks = [
        replace(
            block,
            pp_ns=tuple(round(ns * (apart if bandwidth == FAR else 1)) for ns in block.pp_ns),
            seen={when: {**MACHINE, "bandwidth_bytes_per_s": bandwidth} for when in ("machine", "machine_after")},
        )
        for block, bandwidth in zip(whole.blocks, bandwidths, strict=True)
    ]
    return replace(whole, blocks=tuple(blocks))


@pytest.mark.parametrize("speeds", [[NEAR] * 5, [FAR] * 5, [NEAR, FAR, FAR, NEAR, FAR]])
def test_another_speed_of_the_machine_is_no_regression_and_hides_none(speeds: list[float]) -> None:
    baseline = run(moved(*[NEAR, FAR] * 4))
    found = judge(baseline, run(moved(*speeds)), Limits())
    assert of(found, "pp128").verdict == PASS
    assert found.notes == ("the machine had 2 speeds (36 and 64 GB/s of memory): children of one are compared",)
    assert of(judge(baseline, run(moved(*speeds, slow=1.08)), Limits()), "pp128").verdict == REGRESSION


@pytest.mark.parametrize(
    ("before", "now", "slow", "verdict"),
    [
        (NEAR, FAR, 1.0, INCONCLUSIVE),  # 16 % slower, which may be the machine
        (NEAR, FAR, 1.5, REGRESSION),
        (FAR, NEAR, 1.08, INCONCLUSIVE),
        (FAR, NEAR, 0.8, PASS),
    ],
)
def test_a_speed_that_the_baseline_has_not_makes_it_uncertain(
    before: float, now: float, slow: float, verdict: str
) -> None:
    found = of(judge(run(moved(*[before] * 8)), run(moved(*[now] * 5, slow=slow)), Limits()), "pp128")
    assert found.verdict == verdict
    assert ("too few processes had the same" in found.text) == (verdict == INCONCLUSIVE)


def test_a_machine_that_was_read_with_other_threads_says_nothing() -> None:
    one, two = moved(*[NEAR] * 6), moved(*[FAR] * 6)
    blocks = [
        replace(b, pp_ns=one.blocks[0].pp_ns, seen={"machine": {**b.seen["machine"], "n_threads": 1}})
        for b in two.blocks
    ]
    found = judge(run(one), run(replace(two, blocks=tuple(blocks))), Limits())
    assert (of(found, "pp128").verdict, of(found, "tg32").verdict, found.notes) == (PASS, PASS, ())


def test_what_must_hold_here_is_held_against_all_children() -> None:
    found = of(
        judge(run(moved(*[NEAR, FAR] * 4)), run(moved(*[NEAR] * 3, *[FAR] * 3)), Limits(min_tok_per_s=1)), "tg32"
    )
    assert found.verdict == PASS


# ------------------------------------------------------------------ recorded by scripts/experiment-check

DATA = Path(__file__).parent.parent / "data"
EXPERIMENTS = {kind: json.loads((DATA / f"check-experiment{kind}.json").read_text()) for kind in ("", "-generation")}
"""SmolLM2-135M F16 on virtual machines of 2 cores: a baseline, checks of the same, and checks of children that slept
for 8 % of the time that they decoded. pp128 with one thread beside other guests, 20 and 20; and pp128 and tg32 with
two threads on a quiet one, 4 and 3."""
CHECKS = [(kind, check) for kind, experiment in EXPERIMENTS.items() for check in experiment["checks"]]


@pytest.mark.parametrize(("experiment", "check"), CHECKS, ids=[f"{check['kind']}{kind}" for kind, check in CHECKS])
def test_a_slow_down_of_8_percent_is_found_and_a_repeat_passes(experiment: str, check: Mapping[str, Any]) -> None:
    baseline = BenchRun.from_document(EXPERIMENTS[experiment]["baseline"])
    now: BenchRun | None = None
    for document in check["runs"]:
        more = BenchRun.from_document(document)
        now = more if now is None else joined(now, more)
    assert now is not None
    assert judge(baseline, now, Limits()).verdict == (REGRESSION if check["kind"] == "slow" else PASS)
