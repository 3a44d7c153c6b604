"""The child's side of collecting an importance matrix. Imported in child processes only.

The method is that of llama-imatrix (https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/imatrix/imatrix.cpp):
chunks of 512 tokens, each run from an empty context with BOS in the place of its first token where the vocabulary wants
it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.activations import Collected, Watch
from slmkit.backends.llamacpp.bindings import Floats, NativeError
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Decoder
from slmkit.backends.llamacpp.native import ll
from slmkit.backends.llamacpp.tensors import check_layout
from slmkit.core.imatrix import CHECK_EVERY, CHUNK_TOKENS, SAVE_EVERY_S, Reason, is_settled
from slmkit.formats import imatrix as file
from slmkit.formats.imatrix import Imatrix, Importance

_FORM = 2
"""Of what is saved: nothing goes on from another."""


def imatrix(channel: Channel, **request: Any) -> dict[str, Any]:
    """See `_collect`; the result has `errno` alone when a file cannot be written."""
    try:
        return _collect(channel, **request)
    except OSError as error:
        return {"errno": error.errno}


def _collect(
    channel: Channel,
    path: str,
    text: str,
    dataset: str,
    target: str,
    state: str,
    subject: str,
    n_chunks: int | None,
    n_threads: int,
    save_every_s: float = SAVE_EVERY_S,
) -> dict[str, Any]:
    """Write `target` from at most `n_chunks` of `text`; go on where `state` stopped, if that is about `subject`.

    `state` is a file like `target` that is replaced at each look, and after a chunk when `save_every_s` have passed, so
    that a child that is killed loses only what came after.
    """
    bindings.forward_log(channel)
    check_layout()
    size = CHUNK_TOKENS
    build = bindings.build()
    subject = hashlib.sha256(json.dumps([_FORM, subject, dataset, size, build]).encode()).hexdigest()
    collected = Collected()
    moved, before = collected.resume(Path(state), subject, n_chunks)
    watch = Watch(collected)
    with (
        bindings.model(path) as model,
        bindings.context(model, n_ctx=size, n_batch=size, n_ubatch=size, n_threads=n_threads, watch=watch) as context,
    ):
        decoder = Decoder(model, context, size)
        tokens = decoder.tokenize(text.removesuffix("\n"))  # as llama-imatrix reads a file
        last = min(n_chunks or len(tokens), len(tokens) // size)
        channel.send("text", n_tokens=len(tokens), n_chunks=last, done=collected.n_chunks)
        if not last:
            return {"n_tokens": len(tokens), "n_chunks": 0}
        saved_s = time.monotonic()
        with _batch(size) as batch:
            while collected.n_chunks < last and not is_settled(moved):
                chunk = tokens[collected.n_chunks * size :][:size].copy()
                if decoder.bos is not None:
                    chunk[0] = decoder.bos
                _decode(context, batch, chunk)
                watch.end_chunk()
                channel.send("chunk")
                is_look = collected.n_chunks % CHECK_EVERY == 0
                if is_look:
                    moved.append(share_moved(before, before := collected.snapshot()))
                    channel.send("look", moved=moved[-1])
                if is_look or time.monotonic() - saved_s >= save_every_s:
                    notes = {"subject": subject, "moved": moved}
                    entries = collected.with_look(before)
                    _save(Path(state), Imatrix(entries, (dataset,), collected.n_chunks, size, notes))
                    saved_s = time.monotonic()
    reason: Reason = "settled" if is_settled(moved) else "chunks" if last == n_chunks else "text"
    file.write(Path(target), Imatrix(collected.snapshot(), (dataset,), collected.n_chunks, size))
    return {
        "n_tokens": len(tokens),
        "n_chunks": collected.n_chunks,
        "n_entries": len(collected.sums),
        "reason": reason,
        "moved": moved,
        "build": build,
    }


def share_moved(before: dict[str, Importance], after: dict[str, Importance]) -> float:
    """How much of the importance went to other columns: the mean, over matrices, of the total variation distance.

    For each matrix and expert its columns' sums are divided by their total; half the sum of the absolute differences
    is 0 where nothing changed and 1 where all went elsewhere, or where there was nothing before.
    """
    distances: list[Floats] = []
    for name, entry in after.items():
        now = _shares(entry.sums)
        was = _shares(before[name].sums) if name in before else np.zeros_like(now)
        distance = np.abs(now - was).sum(axis=1) / 2
        distances.append(np.where(was.any(axis=1), distance, now.any(axis=1)))
    return float(np.concatenate(distances).mean()) if distances else 1.0


def _shares(sums: Floats) -> NDArray[np.float64]:
    totals = sums.sum(axis=1, keepdims=True, dtype=np.float64)
    shares: NDArray[np.float64] = np.divide(sums, totals, out=np.zeros(sums.shape), where=totals > 0)
    return shares


@contextmanager
def _batch(n_tokens: int) -> Iterator[Any]:
    """Tokens 0 to n of one sequence; every one has an output, else the last layer would be computed for one only."""
    batch = ll.llama_batch_init(n_tokens, 0, 1)
    batch.n_tokens = n_tokens
    for i in range(n_tokens):
        batch.pos[i], batch.n_seq_id[i], batch.logits[i] = i, 1, True
        batch.seq_id[i][0] = 0
    try:
        yield batch
    finally:
        ll.llama_batch_free(batch)


def _decode(context: Any, batch: Any, tokens: NDArray[np.int32]) -> None:
    ctypes.memmove(batch.token, tokens.ctypes.data, tokens.nbytes)
    ll.llama_memory_clear(ll.llama_get_memory(context), True)
    if code := ll.llama_decode(context, batch):
        raise NativeError(f"llama_decode failed with code {code}")
    ll.llama_synchronize(context)


def _save(path: Path, imatrix: Imatrix) -> None:
    """Replace the saved state; a process that dies here leaves the one before."""
    temporary = path.with_name(f"{path.name}.new")
    file.write(temporary, imatrix)
    temporary.replace(path)
