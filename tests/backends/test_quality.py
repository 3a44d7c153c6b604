"""Scores by the real llama.cpp beside its own llama-perplexity, and their arithmetic beside float64."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slmkit.backends.llamacpp.quality import BASE, Listening, quality
from slmkit.backends.llamacpp.quantize import quantize
from slmkit.backends.llamacpp.scoring import Scorer
from slmkit.core.divergence import scores
from slmkit.core.progress import SILENT
from slmkit.core.quality import Chunk, Corpus, QualityRow, QualitySpec, Text
from slmkit.core.quant import QUANT_TYPES
from slmkit.ops import corpora

TEXT = corpora.corpus().text[:12_000]
N_CTX, N_CHUNKS = 128, 12


@pytest.fixture(scope="session")
def llama_perplexity() -> Path:
    script = Path(__file__).parents[2] / "scripts" / "llama-tools"
    command = [str(script), sys.executable, "llama-perplexity"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip()) / "llama-perplexity"


@pytest.fixture(scope="session")
def q4_0(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quality") / "tiny-llama-Q4_0.gguf"
    quantize(f16, target, QUANT_TYPES["Q4_0"], n_threads=2, progress=SILENT)
    return target


def read(
    base: Path | None,
    models: Sequence[Path],
    *,
    done: dict[int, list[Chunk]] | None = None,
    together: bool = True,
    texts: Sequence[Text] = (Text("text", TEXT),),
    n_chunks: int | None = N_CHUNKS,
    n_threads: int = 2,
) -> tuple[dict[int, list[Chunk]], list[str]]:
    """The chunks of each, those that were `done` included, and what else was told."""
    chunks: dict[int, list[Chunk]] = {number: list(own) for number, own in (done or {}).items()}
    told: list[str] = []
    quality(
        base,
        models,
        Corpus("test", tuple(texts)),
        QualitySpec(n_ctx=N_CTX, n_chunks=n_chunks, n_threads=n_threads),
        done=done or {},
        together=together,
        listening=Listening(
            text=lambda n_tokens, n: told.append(f"text {n}"),
            at=lambda number, pid: None,
            vocabulary=lambda number, n_vocab, wanted, same: told.append(
                f"vocabulary {number} {n_vocab == wanted} {same}"
            ),
            failed=lambda number, message: told.append(f"failed {number} {message}"),
            batch=lambda number, new: chunks.setdefault(number, []).extend(new),
            decided=lambda number, keeps: told.append(f"decided {number} {keeps}"),
        ),
    )
    return chunks, told


def row(chunks: Sequence[Chunk]) -> QualityRow:
    return QualityRow("m", "sha256:0", 1, tuple(chunks))


@pytest.mark.parametrize("n_vocab", [300, 49_152, 262_144])
def test_the_arithmetic_is_that_of_float64(n_vocab: int) -> None:
    draw = np.random.default_rng(n_vocab)
    n_rows = 7
    base = draw.normal(0, 4, (n_rows, n_vocab)).astype(np.float32)
    base[0] = 0.0  # all tokens alike: the longest sum
    base[1, 5] = 80.0  # one that is certain
    other = (base + draw.normal(0, 0.05, base.shape)).astype(np.float32)
    tokens = draw.integers(0, n_vocab, n_rows).astype(np.int32)
    log_p, log_q = (_log_softmax(x.astype(np.float64)) for x in (base, other))
    own = np.arange(n_rows)
    scorer = Scorer(n_vocab, 2)
    reference, scored_base = scorer.base(base.copy(), tokens)
    scored = scorer.score(other, tokens, reference)
    np.testing.assert_allclose(scored_base.nll, -log_p[own, tokens], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(scored.nll, -log_q[own, tokens], rtol=2e-6, atol=2e-6)
    exact = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    np.testing.assert_allclose(scored.kld, exact, rtol=1e-3, atol=2e-6)
    assert scored.same_top.tolist() == (base.argmax(axis=1) == other.argmax(axis=1)).tolist()


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def test_nothing_is_lost_to_itself() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (4, 1000)).astype(np.float32)
    tokens = np.zeros(4, np.int32)
    scorer = Scorer(1000, 1)
    base, _ = scorer.base(logits.copy(), tokens)
    scored = scorer.score(logits, tokens, base)
    assert np.abs(scored.kld).max() < 1e-6
    assert scored.same_top.all()


def test_what_is_not_a_number_is_seen_and_no_other_row_suffers() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (3, 100)).astype(np.float32)
    broken = logits.copy()
    broken[1, 7] = np.nan
    scorer = Scorer(100, 2)
    base, _ = scorer.base(logits.copy(), np.zeros(3, np.int32))
    scored = scorer.score(broken, np.zeros(3, np.int32), base)
    assert np.isnan(scored.nll).tolist() == [False, True, False]
    assert np.isnan(scored.kld).tolist() == [False, True, False]


def test_figures_are_llama_perplexitys(llama_perplexity: Path, f16: Path, q4_0: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    settings = ["-c", str(N_CTX), "--chunks", str(N_CHUNKS), "-t", "2"]
    logits = tmp_path / "logits"

    def said(last: str, *arguments: str | Path) -> str:
        """Its output. It prints from a thread and may end in the midst of it: it is run until the line `last` is there.

        (`common_log_main`, https://github.com/ggml-org/llama.cpp/blob/0c1e57098/common/log.cpp)
        """
        command = [str(llama_perplexity), *map(str, arguments), *settings]
        for _ in range(10):  # one run in 20 lacks it
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=250)
            printed = done.stdout + done.stderr
            if re.search(last, printed):
                return printed
        pytest.fail(f"no {last!r} in\n{printed}")

    same_top = r"Same top p: +(\S+) ± +\S+ %\n"  # a heading of its table has the same words
    their_ppl = r"Final estimate: PPL = (\S+) \+/- (\S+)\n"
    theirs_base = said(their_ppl, "-m", f16, "-f", tmp_path / "text.txt", "--save-all-logits", logits)
    theirs = said(same_top, "-m", q4_0, "--kl-divergence", "--kl-divergence-base", logits)
    chunks, _ = read(f16, [q4_0])
    base, quant = scores(row(chunks[BASE])), scores(row(chunks[0]), row(chunks[BASE]))
    assert base
    assert quant
    assert quant.kld
    assert quant.same_top
    assert quant.ppl_ratio
    number = r": +(\S+) ± +(\S+)"
    ppl = re.search(their_ppl, theirs_base)
    assert ppl
    assert (base.ppl.value, base.ppl.error) == pytest.approx((float(ppl[1]), float(ppl[2])), rel=5e-4)
    kld = re.search(rf"Mean +KLD{number}", theirs)
    assert kld
    assert (quant.kld.value, quant.kld.error) == pytest.approx((float(kld[1]), float(kld[2])), rel=0.01)
    ratio = re.search(rf"Mean PPL\(Q\)/PPL\(base\) +{number}", theirs)
    assert ratio
    assert quant.ppl_ratio.value == pytest.approx(float(ratio[1]), rel=5e-4)
    same = re.search(same_top, theirs)
    assert same
    assert 100 * quant.same_top.value == pytest.approx(float(same[1]), abs=0.5)


def test_one_at_a_time_is_the_same_as_together(f16: Path, q4_0: Path) -> None:
    assert read(f16, [q4_0, f16]) == read(f16, [q4_0, f16], together=False)


def test_what_was_read_before_is_not_read_again(f16: Path, q4_0: Path) -> None:
    whole, _ = read(f16, [q4_0])
    for n_base, n_quant in ((N_CHUNKS, 0), (5, 3), (3, 7)):  # batches may have had other sizes
        part = {BASE: whole[BASE][:n_base], 0: whole[0][:n_quant]}
        again, _ = read(f16, [q4_0], done=part)
        assert again == whole


def test_without_a_base_there_is_perplexity(f16: Path, q4_0: Path) -> None:
    with_base, _ = read(f16, [q4_0])
    alone, _ = read(None, [q4_0])
    assert [chunk.nll for chunk in alone[0]] == [chunk.nll for chunk in with_base[0]]
    assert not alone[0][0].kld


def test_domains_are_read_in_turn_and_as_often(f16: Path) -> None:
    texts = (Text("long", TEXT), Text("short", TEXT[:3000]))
    chunks, told = read(f16, [], texts=texts, n_chunks=None)
    order = [(chunk.domain, chunk.number) for chunk in chunks[BASE]]
    n = len(order) // 2
    assert order == [(domain, number) for number in range(n) for domain in ("long", "short")]
    assert f"text {2 * n}" in told


def test_a_long_text_is_read_to_its_end_only_if_it_is_wanted(f16: Path) -> None:
    long = Text("text", TEXT + "\n" + TEXT * 20)
    few, _ = read(f16, [], texts=[long], n_chunks=3)
    many, _ = read(f16, [], texts=[long], n_chunks=6)
    for one, other in zip(few[BASE], many[BASE], strict=False):
        np.testing.assert_allclose(one.nll, other.nll, rtol=1e-3)  # batches of other sizes


def test_a_text_too_short_is_not_read(f16: Path) -> None:
    chunks, told = read(f16, [], texts=[Text("word", "one")])
    assert told[-1] == "text 0"
    assert not chunks


def test_a_file_that_does_not_load_does_not_stop_the_others(f16: Path, q4_0: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(q4_0.read_bytes()[: q4_0.stat().st_size // 2])
    chunks, told = read(f16, [torn, q4_0])
    assert next(text for text in told if text.startswith("failed")).startswith("failed 0")
    assert len(chunks[1]) == N_CHUNKS
