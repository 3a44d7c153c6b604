"""A loaded file that reads chunks of tokens, several at a time. Imported in child processes only."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.bindings import Floats, NativeError
from slmkit.backends.llamacpp.decoder import Tokens, Vocabulary
from slmkit.backends.llamacpp.native import ll

CHARS_PER_TOKEN = 8
"""More than most texts have: a first guess at how much of one is needed."""
CUT_TOKENS = 256
"""So many before a cut are not looked at."""


def beginning(vocabulary: Vocabulary, text: str, n_wanted: int | None) -> Tokens:
    """The tokens of a text without its last line break, as llama.cpp's programs read a file; or of its first lines that
    are sure to have as many as are wanted, and some more: the cut may change the last ones.
    """
    text = text.removesuffix("\n")
    n_chars = len(text) if n_wanted is None else CHARS_PER_TOKEN * n_wanted
    while True:
        end = text.find("\n", n_chars)
        found = vocabulary.tokenize(text if end < 0 else text[:end])
        if end < 0 or n_wanted is None or len(found) >= n_wanted + CUT_TOKENS:
            return found
        n_chars *= 2


class Reader:
    """Reads chunks of `n_ctx` tokens into one context, at most `n_seqs` of them together; `n_decoded` tokens so far."""

    def __init__(self, loaded: bindings.Pointer, created: bindings.Pointer, n_ctx: int, n_seqs: int) -> None:
        self.vocabulary = Vocabulary(loaded)
        self.n_decoded = 0
        self._context = created
        self._n_ctx = n_ctx
        self._batch = ll.llama_batch_init(n_ctx * n_seqs, 0, 1)

    def logits(self, chunks: Sequence[Tokens]) -> Floats:
        """Of the scored tokens of each chunk: those of its second half, but for the last, which nothing follows.

        BOS takes the place of a chunk's first token where the vocabulary wants it. A view of the engine's own buffer,
        shape (n_rows, n_vocab), valid until the next call; raises `NativeError`.
        """
        n_ctx, batch = self._n_ctx, self._batch
        tokens = np.concatenate(chunks)
        if self.vocabulary.bos is not None:
            tokens[::n_ctx] = self.vocabulary.bos
        places = np.tile(np.arange(n_ctx, dtype=np.int32), len(chunks))
        wanted = ((places >= n_ctx // 2) & (places < n_ctx - 1)).astype(np.int8)
        for target, values in ((batch.token, tokens), (batch.pos, places), (batch.logits, wanted)):
            ctypes.memmove(target, values.ctypes.data, values.nbytes)
        for i in range(len(tokens)):
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, i // n_ctx
        batch.n_tokens = len(tokens)
        ll.llama_memory_clear(ll.llama_get_memory(self._context), True)
        if code := ll.llama_decode(self._context, batch):
            raise NativeError(f"llama_decode failed with code {code}")
        ll.llama_synchronize(self._context)
        self.n_decoded += len(tokens)
        shape = (int(wanted.sum()), self.vocabulary.n_vocab)
        view: Floats = np.ctypeslib.as_array(ll.llama_get_logits(self._context), shape=shape)
        return view

    def free(self) -> None:
        """Give its batch back."""
        ll.llama_batch_free(self._batch)


class Readers:
    """Files by number: those that are kept stay loaded until the end of `with`, the others for one use. `n_decoded` are
    the tokens that each has read.
    """

    def __init__(
        self,
        paths: Mapping[int, str],
        kept: frozenset[int],
        *,
        n_ctx: int,
        n_seqs: int,
        n_threads: int,
        n_gpu_layers: int,
    ) -> None:
        self._paths, self._kept, self._n_ctx, self._n_seqs = paths, kept, n_ctx, n_seqs
        self._n_threads, self._n_gpu_layers = n_threads, n_gpu_layers
        self.n_decoded: Counter[int] = Counter()
        self._loaded: dict[int, Reader] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def use(self, number: int) -> Iterator[Reader]:
        """The file, loaded; raises `NativeError`."""
        if number in self._kept and number not in self._loaded:
            self._loaded[number] = self._stack.enter_context(self._open(number))
        if number in self._loaded:
            reader = self._loaded[number]
            before = reader.n_decoded
            yield reader
            self.n_decoded[number] += reader.n_decoded - before
        else:
            with self._open(number) as reader:
                yield reader
                self.n_decoded[number] += reader.n_decoded

    @contextmanager
    def _open(self, number: int) -> Iterator[Reader]:
        size = self._n_ctx * self._n_seqs
        with (
            bindings.model(self._paths[number], n_gpu_layers=self._n_gpu_layers) as loaded,
            bindings.context(
                loaded,
                n_ctx=size,
                n_batch=size,
                n_ubatch=min(512, size),
                n_threads=self._n_threads,
                n_seqs=self._n_seqs,
            ) as created,
        ):
            reader = Reader(loaded, created, self._n_ctx, self._n_seqs)
            try:
                yield reader
            finally:
                reader.free()
