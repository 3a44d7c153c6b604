"""GGUFs on the Hub without their weights: headers are asked for, the rest of each file is a hole that takes no room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from slmkit.errors import GgufError
from slmkit.formats.gguf.header import GgufHeader, parse_head
from slmkit.hub.cache import RemoteFile, RepoCache
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.headers import AT_A_TIME, read_range

FIRST_BYTES = 1 << 20
"""Asked for first, then each time as much again: the tokenizer is in the header, which has 1 to 15 MB."""

MOST_BYTES = 64 << 20
"""No header is larger."""

_MOST_DATA_BYTES = 1 << 20
"""Of one tensor: those that are wanted have some hundred bytes."""


def fetch_hollows(
    client: HubClient, snapshot: RepoSnapshot, files: Sequence[RemoteFile], folder: Path, wanted: tuple[str, ...] = ()
) -> Path:
    """The first of a GGUF's shards, all of them in `folder` with their names and sizes, or whole in the cache.

    Of the weights only the (small) tensors whose names end in one of `wanted` are there. Raises `GgufError`, `OSError`,
    and the `HubError`s.
    """
    cached = [RepoCache(client.cache_dir, snapshot.repo).pointer(snapshot.commit, file.path) for file in files]
    if all(here.is_file() and here.stat().st_size == file.size_bytes for here, file in zip(cached, files, strict=True)):
        return cached[0]
    paths = [folder.joinpath(*PurePosixPath(file.path).parts) for file in files]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda file, path: _fetch(client, snapshot, file, path, wanted), files, paths))
    return paths[0]


def _fetch(client: HubClient, snapshot: RepoSnapshot, file: RemoteFile, path: Path, wanted: tuple[str, ...]) -> None:
    head = b""
    header = None
    while header is None:
        if len(head) >= MOST_BYTES:
            raise GgufError(f"{path} is damaged: its header does not end within {MOST_BYTES >> 20} MiB")
        stop = min(max(FIRST_BYTES, 2 * len(head)), file.size_bytes)
        head += read_range(client, snapshot, file, len(head), stop)
        header = parse_head(path, head, file.size_bytes)
    with path.open("wb") as out:
        out.write(head)
        for start, stop in _places(header, wanted):
            if len(head) < stop <= file.size_bytes:
                out.seek(start)
                out.write(read_range(client, snapshot, file, start, stop))
    os.truncate(path, file.size_bytes)


def _places(header: GgufHeader, wanted: tuple[str, ...]) -> list[tuple[int, int]]:
    """Where the data of the wanted tensors is."""
    found = [t for t in header.tensors if t.name.endswith(wanted) and t.size_bytes <= _MOST_DATA_BYTES]
    starts = [header.data_offset + tensor.offset for tensor in found]
    return [(start, start + tensor.size_bytes) for start, tensor in zip(starts, found, strict=True)]
