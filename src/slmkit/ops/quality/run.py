"""One model's files beside their base, on one corpus. One that crashes does not take the others along."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from slmkit._version import __version__
from slmkit.backends.llamacpp import child
from slmkit.backends.llamacpp import quality as engine
from slmkit.backends.llamacpp.quality import BASE
from slmkit.core.artifact import Artifact
from slmkit.core.bench import Failure
from slmkit.core.divergence import NEAR_LOSSLESS, VERY_GOOD, scores
from slmkit.core.progress import Progress, Task
from slmkit.core.quality import Baseline, Chunk, Corpus, QualityRow, QualityRun, QualitySpec
from slmkit.errors import CannotWriteError, EngineError, EngineMissingError, EngineTimeoutError, UsageError
from slmkit.host import memory, probe
from slmkit.ops.describe import now
from slmkit.ops.quality.asked import Asked
from slmkit.ops.quality.defects import defect, types_of
from slmkit.ops.quality.likeness import foreign_tensor
from slmkit.ops.quality.room import fit_together
from slmkit.registry import atomic, runs
from slmkit.registry.journals import Journal, journal
from slmkit.registry.store import Registry

KIND = "quality"


def quality(
    base: Artifact | Baseline | None,
    artifacts: Sequence[Artifact],
    corpus: Corpus,
    spec: QualitySpec,
    registry: Registry,
    progress: Progress,
    *,
    resume: bool | None = False,
    save_base: Path | None = None,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
) -> QualityRun:
    """Read the corpus with the base and with each of the others, and save the run. One that fails is a row with its
    reason.

    The base is read once, however many others there are; `room` says how many are loaded at a time. What is read when
    it is interrupted, or when the time of `spec` is over, is kept: `resume` goes on with it, `None` if there is any.
    `save_base` is a file that becomes a baseline, for where the base does not fit beside the others. What else is
    `asked` comes after it.

    Raises `UsageError` for nothing to measure or to resume, for a text that is too short and a baseline of another,
    `EngineMissingError`, `EngineTimeoutError`, and what goes wrong with the base.
    """
    others = [artifact for artifact in artifacts if base is None or artifact.digest != base.digest]
    if base is None and not others:
        raise UsageError("nothing to measure", hint="make something first: `slmkit quantize smollm2-135m -t Q4_0`")
    child.require_engine()
    _check(base, corpus, spec, save_base)
    _warn_beyond([base, *others], spec, progress)
    if asked.behaviour and not isinstance(base, Artifact):
        raise UsageError("there is no float file whose path could be left", hint="name it: `--base REF:F16`")
    spec = replace(spec, n_threads=spec.n_threads or probe.physical_cores())
    started = time.monotonic()
    reading = _Reading(base, others, corpus, spec, progress)
    digests = [file.digest for file in reading.files.values()]
    precision = "exact" if not isinstance(base, Baseline) else "coarse"
    key: dict[str, Any] = {"quality": digests, "base": base and precision, "corpus": corpus.sha256}
    key["spec"] = asdict(replace(spec, timeout_s=None))  # one may go on with more time
    with journal(registry.home, key, resume=resume) as kept:
        with (
            kept.told("read", progress),
            progress.task(f"quality {corpus.name}", None, "steps") as task,
            _saving(save_base) as temporary,
        ):
            reading.read(kept, task, temporary)
        file = base if isinstance(base, Artifact) else None
        results, written = asked.ask(file, others, progress, spec.n_threads)
        run = QualityRun(
            created=now(),
            host=probe.host().document(),
            build=reading.build,
            corpus_name=corpus.name,
            corpus=corpus.sha256,
            spec=spec,
            base=base.digest if base else None,
            rows=tuple(reading.rows),
            slmkit=__version__,
            peak_rss=reading.peak_rss,
            elapsed_s=time.monotonic() - started,
            base_precision=precision,
            tasks=results,
            behaviour=written,
        )
        runs.save(registry.home, KIND, run.document())
        kept.done = True
    return run


def _check(base: Artifact | Baseline | None, corpus: Corpus, spec: QualitySpec, save_base: Path | None) -> None:
    if isinstance(base, Baseline):
        if save_base:
            raise UsageError("a baseline cannot be saved from a baseline", hint="name the float file: `--base REF:F16`")
        if (base.corpus, base.n_ctx) != (corpus.sha256, spec.n_ctx):
            raise UsageError(
                f"{base.path} was read from corpus {base.corpus[:12]} in chunks of {base.n_ctx} tokens, "
                f"this is {corpus.sha256[:12]} in chunks of {spec.n_ctx}",
                hint="give the same `--corpus` and `--ctx` as when it was saved",
            )
    elif save_base and base is None:
        raise UsageError("there is no base to be saved", hint="name it: `--base REF:F16`")
    if save_base and spec.until_decided:
        raise UsageError("a baseline is of all chunks: `--save-base` and `--until` exclude each other")


def _warn_beyond(files: Sequence[Artifact | Baseline | None], spec: QualitySpec, progress: Progress) -> None:
    trained = [n for file in files if isinstance(file, Artifact) and (n := file.facts.get("context_length"))]
    if trained and min(trained) < spec.n_ctx:
        progress.warn(f"chunks of {spec.n_ctx:,} tokens are beyond the {min(trained):,} that the model was trained for")


@contextmanager
def _saving(target: Path | None) -> Iterator[Path | None]:
    """A temporary file that becomes `target`, if that is one."""
    if target is None:
        yield None
        return
    try:
        with atomic.partial(target.absolute()) as temporary:
            yield temporary
    except OSError as error:
        raise CannotWriteError(f"cannot write {target}: {error.strerror}") from error


class _Reading:
    """What has been read so far. `files` have the engine's numbers."""

    def __init__(
        self,
        base: Artifact | Baseline | None,
        others: Sequence[Artifact],
        corpus: Corpus,
        spec: QualitySpec,
        progress: Progress,
    ) -> None:
        self.files: dict[int, Artifact | Baseline] = {**({BASE: base} if base else {}), **dict(enumerate(others))}
        self.build: Mapping[str, str] = {}
        self.peak_rss: int | None = None
        self._corpus, self._spec, self._progress = corpus, spec, progress
        self._chunks: dict[int, list[Chunk]] = {number: [] for number in self.files}
        self._defects: dict[int, str] = {}
        self._failures: dict[int, Failure] = {}
        self._decided: dict[int, bool] = {}
        self._turn, self._pid = BASE, 0
        self._until = None if spec.timeout_s is None else time.monotonic() + spec.timeout_s

    @property
    def rows(self) -> list[QualityRow]:
        """In the order in which they were named, the base first."""
        rows = [self._row(number, artifact) for number, artifact in self.files.items()]
        base = next((row for row in rows if row.is_base), None)
        file = self.files.get(BASE)
        against = file if isinstance(file, Artifact) else None
        return [_judged(row, base, artifact, against) for row, artifact in zip(rows, self.files.values(), strict=True)]

    def _row(self, number: int, artifact: Artifact | Baseline) -> QualityRow:
        return QualityRow(
            ref=artifact.ref,
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
            chunks=tuple(self._chunks[number]),
            is_base=number == BASE,
            defect=self._defects.get(number),
            failure=self._failures.get(number),
            bpw=artifact.facts.get("bpw") if isinstance(artifact, Artifact) else None,
            decided=self._decided.get(number),
        )

    def read(self, kept: Journal, task: Task, save_base: Path | None) -> None:
        """Everything; a file that takes the process along is left out, and the rest is read in another."""
        for record in kept.records:
            self._chunks[record["model"]].extend(Chunk.from_document(each) for each in record["chunks"])
        while True:
            try:
                self._run(kept, task, save_base)
            except EngineMissingError:
                raise
            except EngineTimeoutError as error:
                raise kept.late("read", self._spec.timeout_s, error) from error
            except EngineError as error:
                if self._turn == BASE:
                    raise
                self._failures[self._turn] = Failure.of(error)
                if self._going or save_base:  # a base that is saved is read to its end
                    continue
            return

    @property
    def _going(self) -> list[int]:
        """What is to be read beside the base."""
        return [number for number in self.files if number != BASE and number not in {*self._failures, *self._decided}]

    def _run(self, kept: Journal, task: Task, save_base: Path | None) -> None:
        """One child. Its numbers are those of what it is given."""
        self._turn = BASE
        numbers = {BASE: BASE, **dict(enumerate(self._going))}
        restored = sum(map(len, self._chunks.values()))

        def text(n_tokens: Mapping[str, int], n_chunks: int) -> None:
            if not n_tokens and BASE not in self.files:
                return  # no file could be read
            if not n_chunks:
                name = min(n_tokens, key=lambda domain: n_tokens[domain])
                raise UsageError(
                    f"the text {name} is {n_tokens[name]} tokens long: less than one chunk of {self._spec.n_ctx}",
                    hint="give a longer one, or `--ctx` with a smaller number",
                )
            task.set_total(n_chunks * len(self.files))
            task.advance(restored)

        def at(number: int, pid: int) -> None:
            self._turn, self._pid = numbers[number], pid
            task.describe(self.files[self._turn].ref)
            self._look(pid)

        def vocabulary(number: int, n_vocab: int, wanted: int, same: bool) -> None:
            if n_vocab != wanted:
                self._defects[numbers[number]] = f"its vocabulary has {n_vocab:,} tokens, the base's {wanted:,}"
            elif not same:
                self._defects[numbers[number]] = "its tokenizer splits the text into other tokens than the base's"

        def failed(number: int, message: str) -> None:
            self._failures[numbers[number]] = Failure(EngineError.code, message)

        def batch(number: int, chunks: Sequence[Chunk]) -> None:
            self._look(self._pid)
            self._chunks[numbers[number]].extend(chunks)
            kept.add({"model": numbers[number], "chunks": [chunk.document() for chunk in chunks]})
            task.advance(len(chunks))

        def decided(number: int, keeps: bool) -> None:
            self._decided[numbers[number]] = keeps

        base = self.files.get(BASE)
        saved = isinstance(base, Baseline)
        save = None
        if save_base and base:
            save = engine.Save(save_base, base.ref, base.digest, base.size_bytes, self._corpus.sha256)
        done = engine.quality(
            base.path if base and not saved else None,
            [self.files[number].path for number in self._going],
            self._corpus,
            self._spec,
            done={number: self._chunks[mine] for number, mine in numbers.items() if mine in self.files},
            together=fit_together(
                base if isinstance(base, Artifact) else None,
                [file for number in self._going if isinstance(file := self.files[number], Artifact)],
                self._progress,
            ),
            timeout_s=None if self._until is None else max(0.0, self._until - time.monotonic()),
            listening=engine.Listening(text, at, vocabulary, failed, batch, decided),
            saved=base.path if base and saved else None,
            save=save,
        )
        self.build = done.build

    def _look(self, pid: int) -> None:
        peak = memory.of_process(pid)["peak_rss"]
        if peak is not None:
            self.peak_rss = max(peak, self.peak_rss or 0)


def _judged(
    row: QualityRow, base: QualityRow | None, artifact: Artifact | Baseline, against: Artifact | None
) -> QualityRow:
    """With the defect that its weights or its scores tell of; `against` is the base's file. Weights may be in another
    order and do the same (a rotated model's): those of a file that is very good are not looked at.
    """
    if row.defect or row.failure or not (found := scores(row, base)):
        return row
    if not isinstance(artifact, Artifact):
        return replace(row, defect=defect(found, None))
    looks = against is not None and not row.is_base and found.verdict not in (NEAR_LOSSLESS, VERY_GOOD)
    foreign = foreign_tensor(against.path, artifact.path) if against and looks else None
    return replace(row, defect=foreign or defect(found, types_of(artifact, against)))
