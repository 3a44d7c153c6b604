"""Headers of safetensors files on the Hub: names, types and shapes of all tensors, and not one weight."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from slmkit.errors import ConnectionCutError, WrongBytesError
from slmkit.formats.safetensors import HEAD_BYTES, Tensor, header_bytes, parse_header, read_file
from slmkit.hub.cache import RemoteFile, RepoCache
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.faults import PassingError

AT_A_TIME = 8
"""Files asked for at the same time."""


def read_headers(
    client: HubClient, snapshot: RepoSnapshot, files: Sequence[RemoteFile]
) -> dict[str, dict[str, Tensor]]:
    """The tensors of each file by its name, as `formats.safetensors.read_file` has them; weights cannot be read.

    What the cache has is read there. Raises `SafetensorsError`, naming `org/name/file`, and the `HubError`s.
    """
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = pool.map(lambda file: _tensors(client, snapshot, file), files)
        return {file.path: tensors for file, tensors in zip(files, found, strict=True)}


def _tensors(client: HubClient, snapshot: RepoSnapshot, file: RemoteFile) -> dict[str, Tensor]:
    here = RepoCache(client.cache_dir, snapshot.repo).pointer(snapshot.commit, file.path)
    if here.is_file() and here.stat().st_size == file.size_bytes:
        return read_file(here)
    name = Path(snapshot.repo, file.path)
    head = read_range(client, snapshot, file, 0, min(HEAD_BYTES, file.size_bytes))
    length = header_bytes(name, head, file.size_bytes)
    return parse_header(name, read_range(client, snapshot, file, HEAD_BYTES, HEAD_BYTES + length), file.size_bytes)


def read_range(client: HubClient, snapshot: RepoSnapshot, file: RemoteFile, start: int, stop: int) -> bytes:
    """The bytes of a file from `start` up to `stop`, and no more; raises the `HubError`s."""
    patience = client.patience()
    while start < stop:
        try:
            with client.open(snapshot, file, start, stop) as response:
                return _take(response, snapshot, file, start, stop)
        except PassingError as passing:
            patience.bear(passing)
    return b""


def _take(response: httpx.Response, snapshot: RepoSnapshot, file: RemoteFile, start: int, stop: int) -> bytes:
    """The wanted bytes and no more, also off a server that knows no ranges and begins at the beginning."""
    if response.status_code == 416:
        raise WrongBytesError(
            f"{file.path} of {snapshot.repo} is shorter than the Hub says",
            hint="run the same command again; if it stays so, a proxy or mirror (HF_ENDPOINT) alters the files",
        )
    before = 0 if response.headers.get("Content-Range", "").startswith(f"bytes {start}-") else start
    out = bytearray()
    for data in response.iter_raw():
        out += data
        if len(out) >= before + stop - start:
            return bytes(out[before : before + stop - start])
    raise PassingError(ConnectionCutError(f"the Hub sent only a part of the header of {file.path}"))
