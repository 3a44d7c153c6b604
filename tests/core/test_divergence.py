"""Figures out of raw scores, beside numpy in float64, and decisions that hold at all times."""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.bench import Failure
from slmkit.core.divergence import BROKEN, GOOD, NEAR_LOSSLESS, NOTICEABLE, VERY_GOOD, clear_of, kept, scores, verdict
from slmkit.core.quality import (
    LEAST_CHUNKS,
    Chunk,
    Corpus,
    QualityRow,
    QualityRun,
    QualitySpec,
    Text,
    in_turn,
    packed,
    unpacked,
)
from slmkit.errors import UsageError


def floats(values: object) -> array[float]:
    return array("f", np.asarray(values, np.float32).tobytes())


def chunk(domain: str, number: int, nll: object, kld: object = (), same: object = ()) -> Chunk:
    return Chunk(domain, number, floats(nll), floats(kld), array("b", np.asarray(same, np.int8).tobytes()))


def row(chunks: list[Chunk], *, is_base: bool = False) -> QualityRow:
    return QualityRow("org/m:Q4_0", "sha256:1", 100, tuple(chunks), is_base=is_base)


def made(domain: str, seed: int, n: int = 64, kld: float = 0.1) -> tuple[Chunk, Chunk]:
    """The base's and a quant's chunk."""
    draw = np.random.default_rng(seed)
    nll = draw.gamma(2, 1.5, n)
    other = nll + draw.normal(0.02, 0.1, n)
    return chunk(domain, seed, nll), chunk(domain, seed, np.abs(other), draw.gamma(1, kld, n), draw.random(n) < 0.8)


def test_one_domain_is_llama_perplexitys_arithmetic() -> None:
    pairs = [made("prose", seed) for seed in range(3)]
    base, quant = row([b for b, _ in pairs], is_base=True), row([q for _, q in pairs])
    found = scores(quant, base)
    assert found is not None
    nll, base_nll, kld, same = (
        np.concatenate([np.asarray(getattr(c, name), np.float64) for c in chunks])
        for chunks, name in (
            (quant.chunks, "nll"),
            (base.chunks, "nll"),
            (quant.chunks, "kld"),
            (quant.chunks, "same_top"),
        )
    )
    n = len(nll)
    error = np.sqrt((np.mean(nll**2) - np.mean(nll) ** 2) / (n - 1))
    assert found.ppl.value == pytest.approx(np.exp(nll.mean()))
    assert found.ppl.error == pytest.approx(np.exp(nll.mean()) * error)
    covariance = (np.mean(nll * base_nll) - nll.mean() * base_nll.mean()) / (n - 1)
    own, others = (np.var(x) / (n - 1) for x in (nll, base_nll))
    assert found.ppl_ratio is not None
    assert found.ppl_ratio.value == pytest.approx(np.exp(nll.mean() - base_nll.mean()))
    assert found.ppl_ratio.error == pytest.approx(
        found.ppl_ratio.value * np.sqrt(own + others - 2 * covariance), rel=1e-6
    )
    assert found.kld is not None
    assert (found.kld.value, found.kld.error) == pytest.approx((kld.mean(), np.std(kld) / np.sqrt(n - 1)))
    assert found.kld_percentiles == pytest.approx(np.percentile(kld, [50, 90, 99]))
    assert found.kld_max == pytest.approx(kld.max())
    dp = np.exp(-nll) - np.exp(-base_nll)
    rms = np.sqrt(np.mean(dp**2))
    assert found.rms_dp is not None
    assert found.rms_dp.value == pytest.approx(rms)
    assert found.rms_dp.error == pytest.approx(0.5 / rms * np.std(dp**2) / np.sqrt(n - 1))
    share = same.mean()
    assert found.same_top is not None
    assert (found.same_top.value, found.same_top.error) == pytest.approx(
        (share, np.sqrt(share * (1 - share) / (n - 1)))
    )


def test_domains_count_the_same_however_long_they_are() -> None:
    long, short = made("prose", 1, n=400, kld=0.4), made("code", 2, n=20, kld=0.01)
    base, quant = row([long[0], short[0]], is_base=True), row([long[1], short[1]])
    every, prose, code = scores(quant, base), scores(quant, base, "prose"), scores(quant, base, "code")
    assert every
    assert prose
    assert code
    assert every.kld and prose.kld and code.kld  # noqa: PT018
    assert every.kld.value == pytest.approx((prose.kld.value + code.kld.value) / 2)
    assert every.kld.error == pytest.approx(math.hypot(prose.kld.error or 0, code.kld.error or 0) / 2)
    assert every.ppl.value == pytest.approx(math.sqrt(prose.ppl.value * code.ppl.value))
    assert every.n_tokens == 420


@pytest.mark.parametrize(
    ("kld", "word"),
    [(0.0, NEAR_LOSSLESS), (0.005, NEAR_LOSSLESS), (0.006, VERY_GOOD), (0.03, GOOD), (0.2, NOTICEABLE), (0.6, BROKEN)],
)
def test_words(kld: float, word: str) -> None:
    base = row([chunk("a", 0, [1, 2, 3])], is_base=True)
    quant = row([chunk("a", 0, [1, 2, 3], [kld] * 3, [1] * 3)])
    assert verdict(quant, scores(quant, base)) == word
    assert verdict(base, scores(base, base)) is None
    assert verdict(replace(quant, defect="its tokenizer is another"), scores(quant, base)) == BROKEN


def test_what_is_not_a_number_is_broken() -> None:
    base = row([chunk("a", 0, [1, 2, 3])], is_base=True)
    quant = row([chunk("a", 0, [1, math.nan, 3], [math.nan] * 3, [0] * 3)])
    assert verdict(quant, scores(quant, base)) == BROKEN
    alone = row([chunk("a", 0, [math.nan] * 3)], is_base=True)
    assert verdict(alone, scores(alone, None)) == BROKEN


def test_a_clear_answer_needs_chunks_and_is_right() -> None:
    draw = random.Random(1)
    far = [draw.gauss(0.10, 0.01) for _ in range(60)]
    assert clear_of(far[: LEAST_CHUNKS - 1], 0.05) is None
    assert clear_of(far[:12], 0.05) is False
    assert clear_of(far[:12], 0.20) is True
    assert clear_of(far, 0.10) is None
    assert clear_of([*far, math.nan], 1.0) is False


def test_asking_after_each_chunk_is_seldom_wrong() -> None:
    """Of a mean that lies on the limit every answer is wrong: in at most some 5 % of runs there is one."""
    draw = random.Random(0)
    answered = 0
    for _ in range(300):
        values: list[float] = []
        for _ in range(100):
            values.append(draw.gauss(0.05, 0.02))
            if clear_of(values, 0.05) is not None:
                answered += 1
                break
    assert answered / 300 <= 0.08  # 5 %, give or take what 300 runs are off by


def test_limits() -> None:
    base_chunk, quant_chunk = made("prose", 3, kld=0.1)
    base, quant = row([base_chunk], is_base=True), row([quant_chunk])
    assert kept(quant, base, QualitySpec()) is None
    assert kept(quant, base, QualitySpec(max_kld=0.5)) is True
    assert kept(quant, base, QualitySpec(max_kld=0.01)) is False
    assert kept(quant, base, QualitySpec(max_kld=0.5, max_ppl_ratio=0.5)) is False
    assert kept(replace(quant, decided=True), base, QualitySpec(max_kld=0.01)) is True
    assert kept(replace(quant, defect="no"), base, QualitySpec(max_kld=0.5)) is False
    assert kept(base, base, QualitySpec(max_kld=0.01)) is None


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 20), min_size=1), st.none() | st.integers(1, 50))
def test_chunks_in_turn(n_chunks: dict[str, int], most: int | None) -> None:
    order = in_turn(n_chunks, most)
    counts = [sum(domain == name for domain, _ in order) for name in n_chunks]
    assert max(counts) - min(counts) <= 1
    assert len(order) == min(min(n_chunks.values()) * len(n_chunks), most if most is not None else 10**9)
    assert len(set(order)) == len(order)


def test_a_run_comes_back_from_json() -> None:
    base_chunk, quant_chunk = made("prose", 4)
    run = QualityRun(
        created="2026-01-01T00:00:00+00:00",
        host={"cpu": "x"},
        build={"engine": "e"},
        corpus_name="prose",
        corpus="0" * 64,
        spec=QualitySpec(max_kld=0.05, until_decided=True),
        base="sha256:0",
        rows=(row([base_chunk], is_base=True), row([quant_chunk]), replace(row([]), failure=Failure("engine", "no"))),
        peak_rss=5,
    )
    import json

    assert QualityRun.from_document(json.loads(json.dumps(run.document()))) == run


@given(st.lists(st.floats(width=32), max_size=30))
def test_packing(values: list[float]) -> None:
    there = array("f", values)
    assert unpacked(packed(there), "f").tobytes() == there.tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"n_ctx": 4},
        {"n_chunks": 0},
        {"max_kld": 0.0},
        {"max_ppl_ratio": -1.0},
        {"until_decided": True},
        {"n_threads": 0},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        QualitySpec(**settings)  # type: ignore[arg-type]


def test_a_corpus_is_known_by_its_digest() -> None:
    one, other = Text("prose", "a"), Text("code", "b")
    assert Corpus("x", (one,)).sha256 == one.sha256
    assert Corpus("x", (one, other)).sha256 != Corpus("x", (other, one)).sha256
    with pytest.raises(UsageError):
        Corpus("x", ())
