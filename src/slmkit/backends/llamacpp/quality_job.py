"""The child's side of measuring quality. Imported in child processes only.

The method is llama-perplexity's (https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/perplexity/perplexity.cpp):
chunks of `n_ctx` tokens, each from an empty context, of which the second half is scored. Base and models read the same
chunks one after the other, so that nobody's logits are kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.bindings import NativeError
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Tokens, Vocabulary
from slmkit.backends.llamacpp.reader import Readers
from slmkit.backends.llamacpp.scoring import Scored, Scorer
from slmkit.core.divergence import decide
from slmkit.core.quality import Chunk, QualitySpec, in_turn

N_BATCH = 2048
"""Tokens of as many chunks as fit are decoded together: llama-perplexity's default."""
LOGITS_BYTES = 512 << 20
"""Fewer are, where their logits would take more than this."""
BASE = -1
"""The number of the base; the models have 0 and up."""

Texts = Sequence[Sequence[str]]
Order = Sequence[tuple[str, int]]


def quality(
    channel: Channel,
    base: str | None,
    models: Sequence[str],
    texts: Texts,
    spec: Mapping[str, Any],
    done: Mapping[str, Sequence[Mapping[str, Any]]],
    together: bool,
) -> dict[str, Any]:
    """Read `texts`, pairs of domain and text, with the file `base` and with each of `models`.

    `done` has the chunks that each (by its number) has read before. With `together` all models stay loaded, else each
    is loaded for every batch of chunks; the base always stays. Events: `text` (tokens of each domain and how many
    chunks are read), `at` (whose turn it is), `vocabulary`, `failed`, `batch` (its chunks) and `decided`.
    """
    bindings.forward_log(channel)
    settings = QualitySpec(**spec)
    assert settings.n_threads is not None
    paths = {**({} if base is None else {BASE: base}), **dict(enumerate(models))}
    tokens, n_vocab, usable = _tokenized(channel, paths, texts)
    n_ctx = settings.n_ctx
    order = in_turn({domain: len(ids) // n_ctx for domain, ids in tokens.items()}, settings.n_chunks)
    channel.send("text", n_tokens={domain: len(ids) for domain, ids in tokens.items()}, n_chunks=len(order))
    if order:
        n_seqs = max(1, min(N_BATCH // n_ctx, LOGITS_BYTES // (n_vocab * 4 * (n_ctx - n_ctx // 2)), len(order)))
        kept = frozenset(paths) if together else frozenset({BASE})
        n_threads, n_gpu_layers = settings.n_threads, settings.n_gpu_layers
        with Readers(
            paths, kept, n_ctx=n_ctx, n_seqs=n_seqs, n_threads=n_threads, n_gpu_layers=n_gpu_layers
        ) as readers:
            chunks = {number: [Chunk.from_document(each) for each in done.get(str(number), ())] for number in paths}
            _Reading(channel, settings, readers, Scorer(n_vocab, n_threads), chunks, usable).run(order, n_seqs, tokens)
    return {"build": bindings.build()}


def _tokenized(channel: Channel, paths: Mapping[int, str], texts: Texts) -> tuple[dict[str, Tokens], int, set[int]]:
    """The tokens of each text and the size of the vocabulary, as the base has them, or else the first model; and which
    files can be held against it. Only vocabularies are loaded.
    """
    tokens: dict[str, Tokens] = {}
    n_vocab, usable = 0, set()
    for number, path in paths.items():
        channel.send("at", model=number)
        try:
            with bindings.model(path, vocab_only=True) as loaded:
                own = Vocabulary(loaded)
                found = {domain: own.tokenize(text.removesuffix("\n")) for domain, text in texts}
        except NativeError as error:
            if number == BASE:
                raise
            channel.send("failed", model=number, message=str(error))
            continue
        if not tokens:
            tokens, n_vocab = found, own.n_vocab
        same = all(np.array_equal(ids, tokens[domain]) for domain, ids in found.items())
        channel.send("vocabulary", model=number, n_vocab=own.n_vocab, wanted=n_vocab, same=same)
        if own.n_vocab == n_vocab:
            usable.add(number)
    return tokens, n_vocab, usable


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
        self._has_base = BASE in chunks
        self._going = usable - {BASE}

    def run(self, order: Order, n_seqs: int, tokens: Mapping[str, Tokens]) -> None:
        """All of `order`, or until everything is decided."""
        n_ctx = self._spec.n_ctx
        for start in range(0, len(order), n_seqs):
            batch = order[start : start + n_seqs]
            todo = [number for number in sorted(self._going) if len(self._chunks[number]) <= start]
            base_todo = self._has_base and len(self._chunks[BASE]) <= start
            if todo or base_todo:
                self._read(batch, [tokens[domain][n * n_ctx : (n + 1) * n_ctx] for domain, n in batch], todo, base_todo)
            if self._spec.until_decided:
                self._leave_decided()
                if not self._going:
                    return

    def _read(self, batch: Order, parts: Sequence[Tokens], todo: Sequence[int], base_todo: bool) -> None:
        targets = np.concatenate([part[self._spec.n_ctx // 2 + 1 :] for part in parts])
        against = None
        if self._has_base:
            self._channel.send("at", model=BASE)
            with self._readers.use(BASE) as reader:
                against, scored = self._scorer.base(reader.logits(parts), targets)
            if base_todo:
                self._keep(BASE, batch, scored)
        for number in todo:
            self._channel.send("at", model=number)
            try:
                with self._readers.use(number) as reader:
                    self._keep(number, batch, self._scorer.score(reader.logits(parts), targets, against))
            except NativeError as error:
                self._going.discard(number)
                self._channel.send("failed", model=number, message=str(error))

    def _keep(self, number: int, batch: Order, scored: Scored) -> None:
        chunks = list(_chunks(batch, scored))
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
