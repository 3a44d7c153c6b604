"""A grammar that the likeliest token must fit, llama.cpp's own. Imported in child processes only."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.native import ll

_SOME = 256
"""Candidates that are looked at before all are: it takes long to ask the grammar about a whole vocabulary."""
_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
"""struct llama_token_data, include/llama.h at 0c1e57098."""


class Grammar:
    """What may follow what was accepted so far."""

    def __init__(self, loaded: bindings.Pointer, text: str) -> None:
        vocab = ll.llama_model_get_vocab(loaded)
        self._sampler = ll.llama_sampler_init_grammar(vocab, text.encode(), b"root")
        if not self._sampler:
            raise bindings.NativeError("llama.cpp cannot read the grammar")

    def pick(self, logits: bindings.Floats) -> int | None:
        """The likeliest token that fits, of equals the first; `None` when none does."""
        for ids in (np.array([logits.argmax()]), _likeliest(logits, _SOME), np.arange(len(logits))):
            allowed = self._allowed(ids, logits)
            if allowed.max() > -np.inf:
                return int(ids[allowed.argmax()])
        return None

    def accept(self, token: int) -> None:
        """It has been generated; not for a token that ends the answer."""
        ll.llama_sampler_accept(self._sampler, token)

    def free(self) -> None:
        """Give its memory back."""
        ll.llama_sampler_free(self._sampler)

    def _allowed(self, ids: NDArray[np.intp], logits: bindings.Floats) -> bindings.Floats:
        """Their logits, minus infinity where the grammar says no."""
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits[ids]
        array = ll.llama_token_data_array(
            data=ctypes.cast(candidates.ctypes.data, ll.llama_token_data_p), size=len(ids), selected=-1, sorted=False
        )
        ll.llama_sampler_apply(self._sampler, ctypes.byref(array))
        allowed: bindings.Floats = candidates["logit"]
        return allowed


def _likeliest(logits: bindings.Floats, n: int) -> NDArray[np.intp]:
    """Ids of the `n` likeliest tokens, in the order of the vocabulary."""
    if n >= len(logits):
        return np.arange(len(logits))
    return np.sort(np.argpartition(logits, len(logits) - n)[len(logits) - n :])


@contextmanager
def grammars(loaded: bindings.Pointer, text: str, n: int) -> Iterator[list[Grammar]]:
    """`n` of them, which are freed in the end; raises `bindings.NativeError`."""
    made: list[Grammar] = []
    try:
        for _ in range(n):
            made.append(Grammar(loaded, text))
        yield made
    finally:
        for grammar in made:
            grammar.free()
