"""The gate's judge of quality, on runs made by hand."""

from __future__ import annotations

import math
import random
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from slmkit.core.bench import Failure
from slmkit.core.check import INCONCLUSIVE, PASS, REGRESSION, UNMEASURED, Check, Judgement, Limits
from slmkit.core.quality import Chunk, QualityRow, QualitySpec
from slmkit.ops.check_quality import half_by_chunks, judge
from tests import judged
from tests.judged import F16, Q4_0, Q8_0, run

ALL = Limits(max_kld=0.05, max_ppl_ratio=1.02, min_same_top=0.9)


def of(check: Check, ref: str, test: str) -> Judgement:
    return next(j for j in check.judgements if j.ref == ref and j.test == test)


def test_a_limit_is_kept_or_broken_when_the_interval_is_clear_of_it() -> None:
    found = judge(run(F16, Q8_0, Q4_0), ALL)
    assert {(j.ref, j.test, j.verdict) for j in found.judgements} == {
        ("org/m:Q8_0", "KLD", PASS),
        ("org/m:Q8_0", "PPL ratio", PASS),
        ("org/m:Q8_0", "same top", PASS),
        ("org/m:Q4_0", "KLD", REGRESSION),
        ("org/m:Q4_0", "PPL ratio", REGRESSION),
        ("org/m:Q4_0", "same top", INCONCLUSIVE),
    }
    assert found.verdict == REGRESSION
    assert found.notes == ("10 chunks of 64 tokens of prose (c0ffee000000), beside org/m:F16",)
    kld = of(found, "org/m:Q4_0", "KLD")
    assert (kld.criterion, kld.baseline, kld.limit) == ("at most 0.05", None, 0.05)
    assert of(found, "org/m:Q4_0", "same top").criterion == "at least 90.0 %"


@pytest.mark.parametrize("limit", [0.06, 0.075, 0.08, 0.085, 0.09, 0.11])
def test_the_verdict_is_where_the_interval_lies(limit: float) -> None:
    found = of(judge(run(F16, Q4_0), Limits(max_kld=limit)), "org/m:Q4_0", "KLD")
    assert found.low is not None
    assert found.high is not None
    assert found.now is not None
    assert found.low < found.now < found.high
    sides = {PASS: found.high <= limit, REGRESSION: found.low > limit, INCONCLUSIVE: found.low <= limit < found.high}
    assert [verdict for verdict, holds in sides.items() if holds] == [found.verdict]


def test_only_what_is_limited_is_judged_and_not_the_base() -> None:
    assert [j.test for j in judge(run(F16, Q8_0), Limits(min_same_top=0.9)).judgements] == ["same top"]
    assert judge(run(F16), ALL) == Check(())
    assert not Limits(min_tok_per_s=10).on_quality
    assert Limits(max_ppl_ratio=1.02).on_quality


def test_what_could_not_be_measured() -> None:
    failed = judged.row("Q2_K", 0.5, failure=Failure("engine.crashed", "it crashed"))
    found = judge(run(F16, failed), ALL)
    assert {(j.verdict, j.text) for j in found.judgements} == {(UNMEASURED, "it crashed")}
    alone = replace(Q4_0, chunks=judged.chunks(None))
    found = judge(run(alone), ALL)
    assert {(j.verdict, j.text) for j in found.judgements} == {
        (UNMEASURED, "there is no base that it was held against")
    }


def test_what_is_broken_passes_nothing() -> None:
    odd = judged.row("Q4_0", 0.0, defect="its vocabulary has 5 tokens, the base's 6")
    found = judge(run(F16, odd), ALL)
    assert {(j.verdict, j.now) for j in found.judgements} == {(REGRESSION, None)}
    assert found.judgements[0].text == "broken: its vocabulary has 5 tokens, the base's 6"
    (first, *rest) = Q4_0.chunks
    nothing = replace(first, kld=array("f", [math.nan] * 32), nll=array("f", [math.nan] * 32))
    found = judge(run(F16, replace(Q4_0, chunks=(nothing, *rest))), Limits(max_kld=9, max_ppl_ratio=9))
    assert {(j.verdict, j.text) for j in found.judgements} == {(REGRESSION, "broken: its scores are no numbers")}


def test_without_bound_is_broken_too() -> None:
    (first, *rest) = Q4_0.chunks
    endless = replace(Q4_0, chunks=(replace(first, kld=array("f", [math.inf] * 32)), *rest))
    (found,) = judge(run(F16, endless), Limits(max_kld=9)).judgements
    assert (found.verdict, found.now) == (REGRESSION, None)


def test_a_run_that_ended_when_it_was_decided_says_so() -> None:
    spec = QualitySpec(n_ctx=judged.N_CTX, max_kld=0.05, until_decided=True)
    notes = judge(run(F16, Q8_0, spec=spec), Limits(max_kld=0.05)).notes
    assert "too narrow" in notes[0]


def test_one_chunk_is_too_little_to_tell() -> None:
    short = [replace(row, chunks=row.chunks[:1]) for row in (F16, Q8_0)]
    found = judge(run(*short), Limits(max_kld=0.05))
    assert [(j.verdict, j.text) for j in found.judgements] == [(INCONCLUSIVE, "too little was read to tell")]


# ------------------------------------------------------------------ the interval


def row_of(means: dict[str, Sequence[float]]) -> QualityRow:
    """A file whose chunks have these means, in each domain."""
    chunks = [
        Chunk(domain, number, array("f", [1.0, 1.0]), array("f", [mean, mean]), array("b", [1, 1]))
        for domain, found in means.items()
        for number, mean in enumerate(found)
    ]
    return replace(Q4_0, chunks=tuple(chunks))


def test_of_one_domain_it_is_students() -> None:
    means = [0.25, 0.5, 0.75, 1.0]
    expected = 3.182 * statistics.stdev(means) / 2
    assert half_by_chunks(row_of({"prose": means}).chunks) == pytest.approx(expected)


def test_what_domains_differ_by_is_no_uncertainty() -> None:
    near, far = [0.25, 0.5, 0.25, 0.5], [8.25, 8.5, 8.25, 8.5]
    half = half_by_chunks(row_of({"prose": near, "code": far}).chunks)
    error = math.sqrt(2 * statistics.variance(near) / 4) / 2
    assert half == pytest.approx(2.447 * error)  # 6 degrees of freedom: both vary alike
    single = half_by_chunks(row_of({"prose": [0.25], "code": [8.25], "math": [4.0]}).chunks)
    assert single == pytest.approx(4.303 * statistics.stdev([0.25, 8.25, 4.0]) / math.sqrt(3))


def test_equal_chunks_leave_no_doubt() -> None:
    assert half_by_chunks(row_of({"prose": [0.5, 0.5]}).chunks) == 0.0
    assert half_by_chunks(()) is None


@pytest.mark.parametrize("domains", [("prose",), ("prose", "code", "chat")])
def test_it_covers_the_truth_as_often_as_it_says(domains: Sequence[str]) -> None:
    """Chunks that lie around 0.1: of 400 texts about 5 % may miss it."""
    missed = 0
    for seed in range(400):
        draw = random.Random(seed)
        means: dict[str, Any] = {name: [max(0.0, draw.gauss(0.1, 0.03)) for _ in range(6)] for name in domains}
        half = half_by_chunks(row_of(means).chunks)
        assert half is not None
        missed += abs(statistics.fmean(statistics.fmean(found) for found in means.values()) - 0.1) > half
    assert 0.025 < missed / 400 < 0.08
