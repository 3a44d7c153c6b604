"""Decoding several sequences, each with tokens of its own, in common batches. Imported in child processes only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.decoder import Tokens, Vocabulary
from slmkit.backends.llamacpp.native import ll


class Part(NamedTuple):
    """A token, its place in its sequence, and whether what is predicted after it is wanted."""

    token: int
    place: int
    seq: int
    wanted: bool


class Sequences(Vocabulary):
    """Those of one context; without one it only tokenizes. `n_batch` tokens at most go in at a time."""

    def __init__(self, loaded: bindings.Pointer, created: bindings.Pointer | None, n_batch: int) -> None:
        super().__init__(loaded)
        self._n_batch = n_batch
        self._adds_eos = bool(ll.llama_vocab_get_add_eos(self._vocab))
        if created is not None:
            self._context = created
            self._memory = ll.llama_get_memory(created)
            self._batch = ll.llama_batch_init(n_batch, 0, 1)

    def tokenize(self, text: str, *, special: bool = False) -> Tokens:
        """The same of a text that goes on: never with EOS."""
        ids = super().tokenize(text, special=special)
        return ids[:-1] if self._adds_eos else ids

    def ends(self, token: int) -> bool:
        """Whether a model that generates this token is done."""
        return bool(ll.llama_vocab_is_eog(self._vocab, token))

    def decode(self, parts: Sequence[Part]) -> Iterator[tuple[int, bindings.Floats]]:
        """The index of each part that is wanted, in their order, and the logits after it: a view that is good until
        the next one is asked for. Raises `bindings.NativeError`.
        """
        batch = self._batch
        for start in range(0, len(parts), self._n_batch):
            chunk = parts[start : start + self._n_batch]
            for i, part in enumerate(chunk):
                batch.token[i], batch.pos[i], batch.logits[i] = part.token, part.place, part.wanted
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, part.seq
            batch.n_tokens = len(chunk)
            if code := ll.llama_decode(self._context, batch):
                raise bindings.NativeError(f"llama_decode failed with code {code}")
            ll.llama_synchronize(self._context)
            for i, part in enumerate(chunk):
                if part.wanted:
                    yield start + i, self._logits(i)

    def fork(self, seq: int, into: int) -> None:
        """Another sequence goes on from where one is."""
        ll.llama_memory_seq_cp(self._memory, seq, into, -1, -1)

    def clear(self) -> None:
        """Forget all of them."""
        ll.llama_memory_clear(self._memory, False)

    def _logits(self, i: int) -> bindings.Floats:
        pointer = ll.llama_get_logits_ith(self._context, i)
        logits: bindings.Floats = np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))
        return logits
