"""The child's side of damage: the text's tokens, and what base and models expect at a few of them. Imported in child
processes only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.bindings import Floats
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Tokens, Vocabulary
from slmkit.backends.llamacpp.quality import BASE
from slmkit.backends.llamacpp.quality_job import Texts
from slmkit.backends.llamacpp.reader import Readers, beginning

N_TOP = 5


def damage(
    channel: Channel,
    base: str,
    models: Sequence[str],
    texts: Texts,
    n_ctx: int,
    n_threads: int,
    n_gpu_layers: int,
    chunks: Sequence[tuple[str, int]],
    wanted: Sequence[Sequence[tuple[str, int, int]]],
) -> dict[str, Any]:
    """Say what the tokens of `chunks` (domain and number) are, and for each of `models` what it expects at the tokens
    `wanted` of it (domain, number of the chunk, scored token), and what the base does.

    Events: `pieces`, of a chunk (nothing for BOS, which is none of the text's); `top`, of a token: the `N_TOP` most
    likely ones with their probabilities. Bytes are sent as Latin-1. One file is loaded at a time, and reads only chunks
    that have such a token.
    """
    bindings.forward_log(channel)
    tokens = _tokens(channel, base, texts, n_ctx, chunks)
    paths = {BASE: base, **dict(enumerate(models))}
    every = sorted({(domain, chunk, index) for each in wanted for domain, chunk, index in each})
    places: dict[int, Sequence[tuple[str, int, int]]] = {BASE: every, **dict(enumerate(wanted))}
    with Readers(paths, frozenset(), n_ctx=n_ctx, n_seqs=1, n_threads=n_threads, n_gpu_layers=n_gpu_layers) as readers:
        for number in (number for number in paths if places[number]):
            by_chunk: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
            for domain, chunk, index in places[number]:
                by_chunk[domain, chunk].append(index)
            with readers.use(number) as reader:
                for (domain, chunk), indexes in by_chunk.items():
                    logits = reader.logits([tokens[domain, chunk]])
                    for index in indexes:
                        top = list(_top(logits[index], reader.vocabulary))
                        channel.send("top", model=number, place=(domain, chunk, index), top=top)
    return {"build": bindings.build()}


def _tokens(
    channel: Channel, base: str, texts: Texts, n_ctx: int, chunks: Sequence[tuple[str, int]]
) -> Mapping[tuple[str, int], Tokens]:
    """Of each of `chunks`, as the base splits the texts."""
    with bindings.model(base, vocab_only=True) as loaded:
        vocabulary = Vocabulary(loaded)
        n_wanted = (1 + max(n for _, n in chunks)) * n_ctx
        ids = {domain: beginning(vocabulary, text, n_wanted) for domain, text in texts}
        found = {(domain, n): ids[domain][n * n_ctx : (n + 1) * n_ctx] for domain, n in chunks}
        for (domain, n), part in found.items():
            bytes_of = (b"" if token == vocabulary.bos else vocabulary.piece(int(token)) for token in part)
            pieces = [piece.decode("latin-1") for piece in bytes_of]
            channel.send("pieces", chunk=(domain, n), pieces=pieces)
    return found


def _top(logits: Floats, vocabulary: Vocabulary) -> Iterator[tuple[str, float]]:
    """The most likely tokens, most likely first."""
    row = logits.astype(np.float64)
    row -= row.max()
    shares = np.exp(row) / np.exp(row).sum()
    for token in np.argsort(-row, kind="stable")[:N_TOP]:
        yield vocabulary.piece(int(token)).decode("latin-1"), float(shares[token])
