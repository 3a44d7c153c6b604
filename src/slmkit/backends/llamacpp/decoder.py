"""Decoding and sampling into a context, of one sequence or of several together. Imported in child processes only."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.native import ll

Tokens = NDArray[np.int32]
State = ctypes.Array[ctypes.c_uint8]


class Vocabulary:
    """A model's tokens."""

    def __init__(self, loaded: bindings.Pointer) -> None:
        self._vocab = ll.llama_model_get_vocab(loaded)
        self.n_vocab = int(ll.llama_vocab_n_tokens(self._vocab))
        self.bos = int(ll.llama_vocab_bos(self._vocab)) if ll.llama_vocab_get_add_bos(self._vocab) else None

    def tokenize(self, text: str, *, special: bool = False) -> Tokens:
        """The ids of a text, with BOS where the vocabulary wants it; `special`: what a chat template writes for special
        tokens becomes these. Raises `bindings.NativeError`.
        """
        data = text.encode()
        ids = (ll.llama_token * (4 * len(data) + 16))()  # a space may become three bytes
        n = ll.llama_tokenize(self._vocab, data, len(data), ids, len(ids), True, special)
        if n < 0:
            raise bindings.NativeError(f"llama.cpp cannot tokenize {text!r} (code {n})")
        return np.array(ids[:n], np.int32)

    def piece(self, token: int) -> bytes:
        """The text of a token."""
        buffer = ctypes.create_string_buffer(256)
        length = ll.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(length, 0)]


class Decoder(Vocabulary):
    """Decodes one sequence into one context; buffers are made once, so that a timed loop allocates nothing."""

    def __init__(self, loaded: bindings.Pointer, created: bindings.Pointer, n_batch: int) -> None:
        super().__init__(loaded)
        self._context = created
        self._memory = ll.llama_get_memory(created)
        self._n_batch = n_batch
        self._one = (ll.llama_token * 1)()
        self._single = ll.llama_batch_get_one(self._one, 1)

    def clear(self) -> None:
        """Forget the context's tokens (not their bytes), as llama-bench does before each repetition."""
        ll.llama_memory_clear(self._memory, False)

    def prompt(self, tokens: Tokens) -> None:
        """Decode a prompt in batches and wait; logits for each batch's last token."""
        for start in range(0, len(tokens), self._n_batch):
            part = np.ascontiguousarray(tokens[start : start + self._n_batch])
            pointer = part.ctypes.data_as(ctypes.POINTER(ll.llama_token))
            self._check(ll.llama_decode(self._context, ll.llama_batch_get_one(pointer, len(part))))
        ll.llama_synchronize(self._context)

    def step(self, token: int) -> None:
        """Decode one token and wait."""
        self._one[0] = token
        self._check(ll.llama_decode(self._context, self._single))
        ll.llama_synchronize(self._context)

    def logits(self) -> bindings.Floats:
        """Of the last decoded token: a copy, shape (n_vocab,)."""
        pointer = ll.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,)).copy()

    def save(self) -> State:
        """The sequence's state, to come back to a depth without decoding it again."""
        size_bytes = int(ll.llama_state_seq_get_size(self._context, 0))
        buffer = (ctypes.c_uint8 * size_bytes)()
        ll.llama_state_seq_get_data(self._context, buffer, len(buffer), 0)
        return buffer

    def restore(self, state: State) -> None:
        """Put a saved state back; raises `bindings.NativeError` when the context does not take it."""
        if not ll.llama_state_seq_set_data(self._context, state, len(state), 0):
            raise bindings.NativeError("llama.cpp cannot restore the context's state")

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise bindings.NativeError(f"llama_decode failed with code {code}")


class Together(Decoder):
    """The same for several sequences that are decoded in the same batches: each gets the same tokens."""

    def __init__(self, loaded: bindings.Pointer, created: bindings.Pointer, n_batch: int, n_seqs: int) -> None:
        super().__init__(loaded, created, n_batch)
        self.n_seqs = n_seqs
        self._n_past = 0
        self._batch = ll.llama_batch_init(max(n_batch, n_seqs), 0, 1)

    def clear(self) -> None:
        """Forget all sequences' tokens."""
        super().clear()
        self._n_past = 0

    def prompt(self, tokens: Tokens) -> None:
        """Decode it for each, in batches in which they follow each other; logits for the last token of each."""
        last = len(tokens) - 1
        parts = [(int(t), i, seq, i == last) for seq in range(self.n_seqs) for i, t in enumerate(tokens)]
        for start in range(0, len(parts), self._n_batch):
            self._decode(parts[start : start + self._n_batch])
        self._n_past += len(tokens)

    def step(self, token: int) -> None:
        """Decode one token of each, together."""
        self._decode([(token, 0, seq, True) for seq in range(self.n_seqs)])
        self._n_past += 1

    def save(self) -> State:
        """The first one's: they are alike."""
        self._depth = self._n_past
        return super().save()

    def restore(self, state: State) -> None:
        """Put it back into each."""
        for seq in range(self.n_seqs):
            if not ll.llama_state_seq_set_data(self._context, state, len(state), seq):
                raise bindings.NativeError("llama.cpp cannot restore the context's state")
        self._n_past = self._depth

    def _decode(self, parts: list[tuple[int, int, int, bool]]) -> None:
        """Of each token: its id, its place after what is there, its sequence, and whether its logits are wanted."""
        batch = self._batch
        for i, (token, place, seq, wanted) in enumerate(parts):
            batch.token[i], batch.pos[i], batch.logits[i] = token, self._n_past + place, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, seq
        batch.n_tokens = len(parts)
        self._check(ll.llama_decode(self._context, batch))
        ll.llama_synchronize(self._context)


class Sampler:
    """llama.cpp's default way to pick a token: top-k 40, top-p 0.95, min-p 0.05, temperature 0.8 (common/common.h)."""

    def __init__(self, created: bindings.Pointer, seed: int) -> None:
        self._context = created
        self._chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        for part in (
            ll.llama_sampler_init_top_k(40),
            ll.llama_sampler_init_top_p(0.95, 1),
            ll.llama_sampler_init_min_p(0.05, 1),
            ll.llama_sampler_init_temp(0.8),
            ll.llama_sampler_init_dist(seed),
        ):
            ll.llama_sampler_chain_add(self._chain, part)

    def pick(self) -> int:
        """A token after the last one that was decoded."""
        return int(ll.llama_sampler_sample(self._chain, self._context, -1))

    def free(self) -> None:
        """Give its memory back."""
        ll.llama_sampler_free(self._chain)


@contextmanager
def sampler(created: bindings.Pointer, seed: int) -> Iterator[Sampler]:
    """One that is freed in the end."""
    made = Sampler(created, seed)
    try:
        yield made
    finally:
        made.free()
