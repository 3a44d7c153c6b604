"""What becomes of a reading whose process goes down: rows, a base that is saved, what is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from slmkit.backends.llamacpp import quality as engine
from slmkit.backends.llamacpp.quality import BASE
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import SILENT
from slmkit.core.quality import Chunk, Corpus, QualitySpec, Text
from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineError, EngineTimeoutError, OutOfMemoryError
from slmkit.formats import base_file
from slmkit.ops import corpora
from slmkit.ops.quality import open_baseline, quality
from slmkit.ops.quality.room import fit_together
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry import runs
from tests import factories
from tests.watching import Watching

CORPUS = Corpus("text", (Text("text", corpora.corpus().text[:14_000]),))
SPEC = QualitySpec(n_ctx=64, n_threads=2)
OLD = b"what was there before"

Killing = Callable[..., None]


@pytest.fixture
def quants(float_artifact: Artifact, session: Session) -> list[Artifact]:
    """Q8_0 and Q4_0 of the float file."""
    ref = ModelRef.parse(float_artifact.model)
    return [report.artifact for report in verbs.quantize(ref, quant_types(["Q8_0,Q4_0"]), session)]


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Killing:
    """Kills each child in which it is the turn of one of the files for the second time, or of the base."""

    def patch(*victims: Artifact, base_of_child: int | None = None) -> None:
        real, paths, n_children = engine.quality, [victim.path for victim in victims], 0

        def call(
            base: Path | None, models: Sequence[Path], *arguments: Any, listening: engine.Listening, **options: Any
        ) -> Any:
            nonlocal n_children
            turns: list[int] = []
            n_children += 1
            child = n_children

            def at(number: int, pid: int) -> None:
                listening.at(number, pid)
                turns.append(number)
                is_victim = child == base_of_child if number == BASE else models[number] in paths
                if is_victim and turns.count(number) == 2:
                    os.kill(pid, signal.SIGKILL)

            return real(base, models, *arguments, listening=replace(listening, at=at), **options)

        monkeypatch.setattr(engine, "quality", call)

    return patch


def read(base: Artifact | Any, files: Sequence[Artifact], session: Session, **options: Any) -> Any:
    return quality(base, files, CORPUS, options.pop("spec", SPEC), session.registry, SILENT, **options)


def test_the_base_is_saved_whole_though_the_last_quant_took_the_child_along(
    float_artifact: Artifact, quants: list[Artifact], session: Session, killing: Killing, tmp_path: Path
) -> None:
    path, plain = tmp_path / "base.slm", tmp_path / "plain.slm"
    path.write_bytes(OLD)
    read(float_artifact, [], session, save_base=plain)
    killing(*quants)
    run = read(float_artifact, quants, session, save_base=path)
    assert [row.failure is not None for row in run.rows] == [False, True, True]
    assert len(run.rows[0].chunks) > 60
    assert open_baseline(path).digest == float_artifact.digest
    assert path.read_bytes() == plain.read_bytes()


def test_a_file_stays_what_it_was_when_the_base_cannot_be_saved(
    float_artifact: Artifact, quants: list[Artifact], session: Session, killing: Killing, tmp_path: Path
) -> None:
    path = tmp_path / "base.slm"
    path.write_bytes(OLD)
    killing(*quants, base_of_child=3)
    with pytest.raises(OutOfMemoryError):
        read(float_artifact, quants, session, save_base=path)
    assert path.read_bytes() == OLD
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_damaged_base_is_not_the_fault_of_a_quant(
    float_artifact: Artifact, quants: list[Artifact], session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "base.slm"
    read(float_artifact, [], session, save_base=path)
    content = path.read_bytes()
    with base_file.reading(path) as file:
        info = file._archive.getinfo("5/log_probs.npy")
    at = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    with pytest.raises(EngineError, match="the baseline is damaged in chunk 5"):
        read(open_baseline(path), quants, session)


def test_the_time_is_for_all_children_together(
    float_artifact: Artifact,
    quants: list[Artifact],
    session: Session,
    killing: Killing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killing(*quants)
    crashing, given = engine.quality, []

    def call(*arguments: Any, timeout_s: float, **options: Any) -> Any:
        given.append(timeout_s)
        return crashing(*arguments, timeout_s=timeout_s, **options)

    monkeypatch.setattr(engine, "quality", call)
    run = read(float_artifact, quants, session, spec=replace(SPEC, timeout_s=500))
    assert [row.failure is not None for row in run.rows] == [False, True, True]
    assert 500 >= given[0] > given[1] > 0


def test_what_was_read_when_the_time_is_over_is_kept_and_no_file_is_called_failed(
    float_artifact: Artifact, quants: list[Artifact], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.quality

    def call(*arguments: Any, listening: engine.Listening, **options: Any) -> Any:
        def batch(number: int, chunks: Sequence[Chunk]) -> None:
            listening.batch(number, chunks)
            if number == 0:
                raise EngineTimeoutError("the engine took more than 60 s and was stopped")

        return real(*arguments, listening=replace(listening, batch=batch), **options)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "quality", call)
        with pytest.raises(EngineTimeoutError, match="more than 60 s and was stopped: what is read is kept") as caught:
            read(float_artifact, quants, session, spec=replace(SPEC, timeout_s=60))
    assert caught.value.hint == "the same command with `--resume` goes on, with another `--timeout` as well"
    assert runs.quality_runs(session.registry.home) == ([], [])
    done: list[int] = []

    def counting(*arguments: Any, **options: Any) -> Any:
        done.extend(len(chunks) for chunks in options["done"].values())
        return real(*arguments, **options)

    monkeypatch.setattr(engine, "quality", counting)
    resumed = read(float_artifact, quants, session, spec=replace(SPEC, timeout_s=500), resume=True)
    assert done == [32, 32, 0]
    assert not any(row.failure for row in resumed.rows)


@pytest.mark.parametrize("together", [True, False])
def test_the_base_is_read_once_however_many_quants_there_are(
    float_artifact: Artifact, quants: list[Artifact], together: bool
) -> None:
    nobody = engine.Listening(*(lambda *_: None,) * 6)
    spec = replace(SPEC, n_chunks=40)
    for files in (quants[:1], quants):
        paths = [file.path for file in files]
        done = engine.quality(
            float_artifact.path, paths, CORPUS, spec, done={}, together=together, listening=nobody
        ).n_decoded
        assert done == dict.fromkeys([BASE, *range(len(files))], 40 * spec.n_ctx)


def test_what_a_reading_takes_does_not_grow_with_the_text(session: Session, tmp_path: Path) -> None:
    n_vocab, n_ctx, few, many = 32_768, 512, 4, 28
    shape = {"n_layers": 1, "hidden": 64, "vocab_size": n_vocab, "tie_word_embeddings": True}
    folder = factories.make_llama(tmp_path / "wide", **shape)
    base = verbs.convert(ModelRef("path", str(folder)), session)
    files = [r.artifact for r in verbs.quantize(ModelRef.parse(base.model), quant_types(["Q8_0,Q4_0"]), session)]
    corpus = Corpus("text", (Text("text", corpora.corpus().text[:80_000]),))
    peaks = []
    for n_chunks in (few, many):
        spec = QualitySpec(n_ctx=n_ctx, n_chunks=n_chunks, n_threads=2)
        run = quality(base, files, corpus, spec, session.registry, SILENT)
        assert [len(row.chunks) for row in run.rows] == [n_chunks] * 3
        assert run.peak_rss is not None
        peaks.append(run.peak_rss)
    chunk_bytes = 4 * n_vocab * n_ctx // 2  # logits of one file
    assert peaks[0] > few * chunk_bytes
    assert peaks[1] - peaks[0] < chunk_bytes < (many - few) * chunk_bytes / 20


@pytest.mark.parametrize(
    ("free_mib", "n_files", "is_together", "said"),
    [
        (700, 2, True, []),
        (500, 2, False, ["say: 2 files would take up to 300.0 MiB of memory with their base, 500.0 MiB are free"]),
        (500, 1, True, []),
        (100, 1, True, ["warn: reading takes up to 240.0 MiB of memory, 100.0 MiB are free"]),
    ],
)
def test_how_many_are_loaded_at_a_time_and_what_is_said(
    monkeypatch: pytest.MonkeyPatch, free_mib: int, n_files: int, is_together: bool, said: list[str]
) -> None:
    class Told(Watching):
        texts: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.texts.append(f"say: {text}")

        def warn(self, text: str) -> None:
            self.texts.append(f"warn: {text}")

    def sized(name: str, mib: int) -> Artifact:
        file = File("f.gguf", mib << 20, "")
        return Artifact("org/m", name, Path(), (file,), True, Provenance("quantize"), "")

    monkeypatch.setattr("slmkit.host.memory.available_bytes", lambda: free_mib << 20)
    told = Told()
    others = [sized("Q4_0", 20), sized("Q5_0", 30)][:n_files]
    assert fit_together(sized("F16", 100), others, told) is is_together
    assert len(told.texts) == len(said)
    assert all(text.startswith(wanted) for text, wanted in zip(told.texts, said, strict=True))


def test_a_time_that_is_too_short(float_artifact: Artifact, quants: list[Artifact], session: Session) -> None:
    with pytest.raises(EngineTimeoutError, match=r"more than 0\.01 s and was stopped: nothing is read yet"):
        read(float_artifact, quants, session, spec=replace(SPEC, timeout_s=0.01))
