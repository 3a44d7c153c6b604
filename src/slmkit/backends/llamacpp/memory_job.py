"""The child's side of planning memory: what loading would take. Imported in child processes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.breakdown import breakdown
from slmkit.backends.llamacpp.buffers import output_bytes
from slmkit.backends.llamacpp.channel import Channel


def memory(
    channel: Channel, paths: Sequence[str], contexts: Sequence[tuple[int, int]], n_batch: int, n_ubatch: int
) -> dict[str, Any]:
    """For each of `paths`, of which only headers are read, and each of `contexts` (n_ctx, number of the cache's type):
    bytes, those of weights by the name of the buffer, or error and log when the engine refuses.

    Nothing is put on a GPU.
    """
    log: list[str] = []
    bindings.on_log(lambda _, text: log.append(text))
    return {"files": [_file(path, contexts, n_batch, n_ubatch, log) for path in paths]}


def _file(
    path: str, contexts: Sequence[tuple[int, int]], n_batch: int, n_ubatch: int, log: list[str]
) -> list[dict[str, Any]]:
    log.clear()
    try:
        with bindings.model(path, n_gpu_layers=0, no_alloc=True) as loaded:
            return [_context(loaded, *each, n_batch, n_ubatch, log) for each in contexts]
    except bindings.NativeError as error:
        return [{"error": str(error), "log": "".join(log)}] * len(contexts)


def _context(
    loaded: bindings.Pointer, n_ctx: int, cache_type: int, n_batch: int, n_ubatch: int, log: list[str]
) -> dict[str, Any]:
    log.clear()
    try:
        with bindings.context(
            loaded,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            n_threads=1,
            type_k=cache_type,
            type_v=cache_type,
        ) as created:
            shares = breakdown(created)
    except bindings.NativeError as error:
        return {"error": str(error), "log": "".join(log)}
    return {
        "weights": {name: share.model_bytes for name, share in shares.items() if share.model_bytes},
        "kv": sum(share.context_bytes for share in shares.values()),
        "compute": sum(share.compute_bytes for share in shares.values()),
        "output": output_bytes("".join(log)) or 0,
    }
