"""The child's side of measuring quality. Imported in child processes only.

The method is llama-perplexity's (https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/perplexity/perplexity.cpp):
chunks of `n_ctx` tokens, each from an empty context, of which the second half is scored. Base and models read the same
chunks one after the other, so that nobody's logits are kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.bindings import NativeError
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Tokens, Vocabulary
from slmkit.backends.llamacpp.quality import BASE
from slmkit.backends.llamacpp.reader import Readers, beginning
from slmkit.backends.llamacpp.scoring import Base, Coarse, Scored, Scorer
from slmkit.core.divergence import decide
from slmkit.core.quality import Chunk, QualitySpec, in_turn
from slmkit.errors import FormatError
from slmkit.formats import base_file
from slmkit.formats.base_file import BaseFile, Header, Kept

N_BATCH = 2048
"""Tokens of as many chunks as fit are decoded together: llama-perplexity's default."""
LOGITS_BYTES = 512 << 20
"""Fewer are, where the logits of all files that stay loaded would take more than this."""

Texts = Sequence[Sequence[str]]
Order = Sequence[tuple[str, int]]


def quality(channel: Channel, **request: Any) -> dict[str, Any]:
    """See `_quality`; the result has `errno` alone when a baseline cannot be written."""
    try:
        return _quality(channel, **request)
    except OSError as error:
        return {"errno": error.errno}
    except FormatError as error:
        raise NativeError(error.message) from error


def n_tokens(channel: Channel, path: str, texts: Texts, n_wanted: int) -> dict[str, Any]:
    """How many tokens the file's vocabulary makes of each text; of a long one only that they are `n_wanted` or more."""
    bindings.forward_log(channel)
    with bindings.model(path, vocab_only=True) as loaded:
        own = Vocabulary(loaded)
        return {"n_tokens": {domain: len(beginning(own, text, n_wanted)) for domain, text in texts}}


def _quality(
    channel: Channel,
    base: str | None,
    models: Sequence[str],
    texts: Texts,
    spec: Mapping[str, Any],
    done: Mapping[str, Sequence[Mapping[str, Any]]],
    together: bool,
    saved: str | None,
    save: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Read `texts`, pairs of domain and text, with the file `base` (or what is `saved` of one) and each of `models`.

    `done` has the chunks that each (by its number) has read before. With `together` all models stay loaded, else each
    is loaded for every batch of chunks; the base always stays. `save` has the `path` of a baseline that is written, and
    the facts of its header. Events: `text` (tokens of each domain and how many chunks are read), `at` (whose turn it
    is), `vocabulary`, `failed`, `batch` (its chunks) and `decided`. The result has the tokens that each has decoded.
    """
    bindings.forward_log(channel)
    settings = QualitySpec(**spec)
    assert settings.n_threads is not None
    paths = {**({} if base is None else {BASE: base}), **dict(enumerate(models))}
    n_decoded: Mapping[int, int] = {}
    with ExitStack() as stack:
        baseline = stack.enter_context(base_file.reading(Path(saved))) if saved else None
        book = _Book(channel, paths, texts, settings, baseline)
        if book.order:
            n_seqs = book.n_seqs(len(paths) if together else 2)
            readers = stack.enter_context(
                Readers(
                    paths,
                    frozenset(paths) if together else frozenset({BASE}),
                    n_ctx=settings.n_ctx,
                    n_seqs=n_seqs,
                    n_threads=settings.n_threads,
                    n_gpu_layers=settings.n_gpu_layers,
                )
            )
            writer = stack.enter_context(base_file.writing(Path(save["path"]))) if save else None
            has_base = base is not None or saved is not None
            numbers = {*paths, *({BASE} if has_base else ())}
            chunks = {number: [Chunk.from_document(each) for each in done.get(str(number), ())] for number in numbers}
            reading = _Reading(
                channel, settings, readers, Scorer(book.n_vocab, settings.n_threads), chunks, book.usable
            )
            reading.baseline, reading.writer = baseline, writer
            reading.run(book, n_seqs)
            n_decoded = readers.n_decoded
            if writer and save:
                facts = {name: value for name, value in save.items() if name != "path"}
                order, n_vocab = tuple(book.order), book.n_vocab
                writer.finish(
                    Header(**facts, n_ctx=settings.n_ctx, n_vocab=n_vocab, order=order, build=bindings.build())
                )
    return {"build": bindings.build(), "n_decoded": {str(number): n for number, n in n_decoded.items()}}


class _Book:
    """The chunks that are read: `order` has their domains and numbers, `pages` their tokens, as the base's vocabulary
    has them, or else the first model's. `usable` are the files whose vocabulary is as large. Only vocabularies are
    loaded.
    """

    def __init__(
        self, channel: Channel, paths: Mapping[int, str], texts: Texts, spec: QualitySpec, baseline: BaseFile | None
    ) -> None:
        self.n_vocab = baseline.header.n_vocab if baseline else 0
        self.order: Order = list(baseline.header.order[: spec.n_chunks]) if baseline else []
        self.pages = [baseline.tokens(i) for i in range(len(self.order))] if baseline else []
        self.usable: set[int] = set()
        self._n_ctx = spec.n_ctx
        lengths: dict[str, int] = {}
        for number, path in paths.items():
            channel.send("at", model=number)
            try:
                with bindings.model(path, vocab_only=True) as loaded:
                    own = Vocabulary(loaded)
                    wanted = None if spec.n_chunks is None else -(-spec.n_chunks // len(texts)) * spec.n_ctx
                    tokens = {domain: beginning(own, text, wanted) for domain, text in texts}
            except NativeError as error:
                if number == BASE:
                    raise
                channel.send("failed", model=number, message=str(error))
                continue
            lengths = lengths or {domain: len(ids) for domain, ids in tokens.items()}
            if not self.n_vocab:
                self.n_vocab = own.n_vocab
                self.order = in_turn({domain: len(ids) // spec.n_ctx for domain, ids in tokens.items()}, spec.n_chunks)
                self.pages = list(self._pages(tokens))
            same = all(np.array_equal(a, b) for a, b in zip(self._pages(tokens), self.pages, strict=True))
            channel.send("vocabulary", model=number, n_vocab=own.n_vocab, wanted=self.n_vocab, same=same)
            if own.n_vocab == self.n_vocab:
                self.usable.add(number)
        channel.send("text", n_tokens=lengths, n_chunks=len(self.order))

    def n_seqs(self, n_loaded: int) -> int:
        """How many chunks are decoded together."""
        logits_bytes = 4 * self.n_vocab * (self._n_ctx - self._n_ctx // 2) * n_loaded
        return max(1, min(N_BATCH // self._n_ctx, LOGITS_BYTES // logits_bytes, len(self.order)))

    def _pages(self, tokens: Mapping[str, Tokens]) -> Iterator[Tokens]:
        for domain, number in self.order:
            yield tokens[domain][number * self._n_ctx : (number + 1) * self._n_ctx]


class _Reading:
    """Base and models in turn, batch by batch of chunks; those that are done or cannot go on leave."""

    def __init__(
        self,
        channel: Channel,
        spec: QualitySpec,
        readers: Readers,
        scorer: Scorer,
        chunks: Mapping[int, list[Chunk]],
        usable: set[int],
    ) -> None:
        self._channel, self._spec, self._readers, self._scorer = channel, spec, readers, scorer
        self._chunks = chunks
        self._going = usable - {BASE}
        self.baseline: BaseFile | None = None
        self.writer: base_file.Writer | None = None

    def run(self, book: _Book, n_seqs: int) -> None:
        """All of the book, or until everything is decided."""
        for start in range(0, len(book.order), n_seqs):
            batch = book.order[start : start + n_seqs]
            todo = [number for number in sorted(self._going) if len(self._chunks[number]) < start + len(batch)]
            is_base_read = BASE not in self._chunks or len(self._chunks[BASE]) >= start + len(batch)
            if todo or not is_base_read or self.writer:
                self._read(start, batch, book.pages[start : start + n_seqs], todo)
            if self._spec.until_decided:
                self._leave_decided()
                if not self._going:
                    return

    def _read(self, start: int, batch: Order, pages: Sequence[Tokens], todo: Sequence[int]) -> None:
        targets = np.concatenate([page[self._spec.n_ctx // 2 + 1 :] for page in pages])
        against = None
        if BASE in self._chunks:
            against, scored = self._base(start, pages, targets)
            self._keep(BASE, start, batch, scored)
        for number in todo:
            self._channel.send("at", model=number)
            try:
                with self._readers.use(number) as reader:
                    self._keep(number, start, batch, self._scorer.score(reader.logits(pages), targets, against))
            except NativeError as error:
                self._going.discard(number)
                self._channel.send("failed", model=number, message=str(error))

    def _base(self, start: int, pages: Sequence[Tokens], targets: Tokens) -> tuple[Base, Scored]:
        """What the models are held against: what is saved, or what the base says now, which may be saved."""
        self._channel.send("at", model=BASE)
        if self.baseline:
            kept = [self.baseline.chunk(start + i) for i in range(len(pages))]
            nothing = np.empty(0, np.float32)
            return Coarse(kept), Scored(np.concatenate([k.nll for k in kept]), nothing, nothing.astype(np.int8))
        with self._readers.use(BASE) as reader:
            full, scored = self._scorer.base(reader.logits(pages), targets)
        if self.writer:
            n_rows = len(targets) // len(pages)
            for i, page in enumerate(pages):
                own = slice(i * n_rows, (i + 1) * n_rows)
                self.writer.add(Kept.of(page, full.log_probs[own], scored.nll[own]))
        return full, scored

    def _keep(self, number: int, start: int, batch: Order, scored: Scored) -> None:
        """What was not read before: batches of an earlier process may have been of another size."""
        chunks = list(_chunks(batch, scored))[max(0, len(self._chunks[number]) - start) :]
        if chunks:
            self._chunks[number].extend(chunks)
            self._channel.send("batch", model=number, chunks=[chunk.document() for chunk in chunks])

    def _leave_decided(self) -> None:
        for number in sorted(self._going):
            answer = decide(self._chunks[number], self._chunks.get(BASE, ()), self._spec)
            if answer is not None:
                self._going.discard(number)
                self._channel.send("decided", model=number, keeps=answer)


def _chunks(batch: Order, scored: Scored) -> Iterator[Chunk]:
    for n, (domain, number) in enumerate(batch):
        nll, kld, same_top = (
            np.split(values, len(batch))[n].tobytes() for values in (scored.nll, scored.kld, scored.same_top)
        )
        yield Chunk(domain, number, array("f", nll), array("f", kld), array("b", same_top))
