"""Where a real quant of a tiny model loses, beside the same computed from logits in float64.

The other computation keeps the KV cache in float32 and has no flash attention, so values differ by a few percent.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.bench import Failure
from slmkit.core.damage import Damage
from slmkit.core.losses import N_WORST
from slmkit.core.progress import SILENT
from slmkit.core.quality import Corpus, QualityRun, QualitySpec, Text
from slmkit.core.refs import ModelRef
from slmkit.errors import ChangedError, UsageError
from slmkit.ops import adopt, corpora
from slmkit.ops.quality import damage, quality
from slmkit.recipes.damage import damage as damage_of
from slmkit.recipes.session import Session
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests.convert.engine import logits, tokenize

N_CTX = 64
FIRST = N_CTX // 2
SPEC = QualitySpec(n_ctx=N_CTX, n_chunks=6, n_threads=2)
TEXT = corpora.corpus().text
CORPUS = Corpus("two", (Text("one", TEXT[:1200]), Text("two", "He paid Mr Smith 42 crowns. Привет, 中文!\n" * 20)))

Measured = tuple[QualityRun, dict[str, Artifact]]


@pytest.fixture
def measured(tiny: str, registry: Registry) -> Measured:
    """The tiny model's Q4_0 beside its F16."""
    base, quant = registry.find(tiny, "F16"), registry.find(tiny, "Q4_0")
    assert base
    assert quant
    run = quality(base, [quant], CORPUS, SPEC, registry, SILENT)
    return run, {base.digest: base, quant.digest: quant}


@pytest.fixture
def found(measured: Measured) -> Damage:
    run, files = measured
    (one,) = damage(run, files, CORPUS, SILENT)
    return one


def log_probs(gguf: Path, tokens: list[int]) -> npt.NDArray[np.float64]:
    rows = logits(gguf, tokens).astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    normal: npt.NDArray[np.float64] = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return normal


def test_the_worst_contexts_are_those_of_another_computation(measured: Measured, found: Damage) -> None:
    run, files = measured
    base, quant = (files[row.digest].path for row in run.rows)
    ids = {text.domain: tokenize(base, [text.text.removesuffix("\n")], special=True)[0] for text in CORPUS.texts}
    klds, expected = [], {}
    for chunk in run.rows[1].chunks:
        part = [1, *ids[chunk.domain][chunk.number * N_CTX + 1 : (chunk.number + 1) * N_CTX]]
        p, q = (log_probs(path, part)[FIRST : N_CTX - 1] for path in (base, quant))
        for index, kld in enumerate((np.exp(p) * (p - q)).sum(axis=1)):
            klds.append(float(kld))
            expected[chunk.domain, chunk.number, index] = (p[index], q[index], part[FIRST + 1 + index])
    assert [context.place.kld for context in found.worst] == pytest.approx(sorted(klds)[: -N_WORST - 1 : -1], rel=0.05)
    for context in found.worst:
        place = context.place
        p_row, q_row, token = expected[place.domain, place.number, place.index]
        for row, top, own in (
            (p_row, context.base_top, context.base_probability),
            (q_row, context.top, context.probability),
        ):
            best = np.sort(np.exp(row))[: -len(top) - 1 : -1]
            assert [likely.probability for likely in top] == pytest.approx(best, rel=0.05)
            assert own == pytest.approx(float(np.exp(row[token])), rel=0.05)


def test_the_texts_are_those_of_the_corpus(found: Damage) -> None:
    texts = {text.domain: text.text for text in CORPUS.texts}
    for context in found.worst:
        if "\\x" not in context.token:
            whole = (context.before + context.token).replace("\ufffd", "").lstrip()
            assert whole in " " + texts[context.place.domain]
        assert len(context.before) <= 60


def test_all_classes_of_the_text_are_there(found: Damage) -> None:
    names = {group.name for group in found.of_kind("class")}
    assert {"Latin words", "names", "digits", "punctuation", "bytes"} <= names
    assert [group.name for group in found.of_kind("domain")] == ["one", "two"]
    assert [group.n_tokens for group in found.of_kind("domain")] == [3 * (N_CTX - 1 - FIRST)] * 2
    assert len(found.of_kind("place")) == 8


def test_the_same_again_is_the_same(measured: Measured, found: Damage) -> None:
    run, files = measured
    assert damage(run, files, CORPUS, SILENT) == [found]


def test_another_corpus_or_no_base_is_refused(measured: Measured) -> None:
    run, files = measured
    other = Corpus("other", CORPUS.texts[:1])
    with pytest.raises(UsageError, match="measured on two, not on other"):
        damage(run, files, other, SILENT)
    with pytest.raises(UsageError, match="no loss to look for"):
        damage(replace(run, rows=run.rows[1:]), files, CORPUS, SILENT)


def test_a_run_without_a_base_has_no_damage(measured: Measured, session: Session) -> None:
    run = replace(measured[0], base=None)
    assert damage_of(run, CORPUS, session) is run


def test_the_files_of_a_run_are_found_again(measured: Measured, found: Damage, session: Session) -> None:
    assert damage_of(measured[0], CORPUS, session).damages == (found,)


def test_it_is_kept_with_the_run(measured: Measured, found: Damage, session: Session) -> None:
    before = runs.read_any(session.registry.home, "latest")
    assert before.run == measured[0]
    damage_of(measured[0], CORPUS, session)
    after = runs.read_any(session.registry.home, "latest")
    assert (after.id, after.run) == (before.id, measured[0].with_damage([found]))


def test_a_run_that_was_deleted_meanwhile_stays_away(measured: Measured, session: Session) -> None:
    runs.find(session.registry.home, "latest").unlink()
    assert damage_of(measured[0], CORPUS, session).damages
    assert runs.quality_runs(session.registry.home) == ([], [])


def test_files_that_were_named_by_a_path_are_found_again(measured: Measured, session: Session, tmp_path: Path) -> None:
    run, files = measured
    base, quant = (files[row.digest] for row in run.rows)
    elsewhere = tmp_path / "mine-Q4_0.gguf"
    elsewhere.write_bytes(quant.path.read_bytes())
    typed = replace(adopt.describe(elsewhere, SILENT), typed=str(elsewhere))
    again = quality(base, [typed], CORPUS, SPEC, session.registry, SILENT)
    assert [one.ref for one in damage_of(again, CORPUS, session).damages] == [str(elsewhere)]
    elsewhere.write_bytes(base.path.read_bytes())
    with pytest.raises(ChangedError, match="has changed since it was measured"):
        damage_of(again, CORPUS, session)
    assert ModelRef.parse(str(elsewhere)).kind == "path"


def test_what_failed_half_way_is_not_looked_at_again(measured: Measured, session: Session) -> None:
    run, _ = measured
    failed = [row if row.is_base else replace(row, failure=Failure("engine.crashed", "it crashed")) for row in run.rows]
    run = replace(run, rows=tuple(failed))
    (session.registry.find("local/tiny-llama", "Q4_0") or pytest.fail("it is not here")).path.unlink()
    assert damage_of(run, CORPUS, session) == run
