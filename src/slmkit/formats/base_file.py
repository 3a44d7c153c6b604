"""A baseline on the disk: of each scored token the probabilities that matter. A zip file of numpy arrays.

Of each token the most likely next ones are kept until all others together have less than `TAIL`, at most `MOST`; the
others are taken together for one. So a KL divergence from it is that of coarser probabilities: never more than the
exact one, and less by the divergence among the others times what they have.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.errors import FormatError

MAGIC, SCHEMA = "slmkit quality base", 1
TAIL = 0.01
MOST = 4096
_DAMAGE = (
    *(EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
"""What zipfile and numpy raise over bytes that are not what they were."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of members: the same baseline is the same bytes."""


@dataclass(frozen=True)
class Kept:
    """A chunk: its tokens, and of each row (a scored one) how many next tokens are kept, these one row after the other,
    the most likely first, with the natural logarithms of their probabilities; the probability of all others; and the
    NLL of the text's own.
    """

    tokens: NDArray[np.int32]
    counts: NDArray[np.uint16]
    ids: NDArray[np.uint32]
    log_probs: NDArray[np.float32]
    tails: NDArray[np.float32]
    nll: NDArray[np.float32]

    @classmethod
    def of(cls, tokens: NDArray[np.int32], log_probs: NDArray[np.float32], nll: NDArray[np.float32]) -> Kept:
        """From full rows, shape (n_rows, n_vocab)."""
        rows = [_head(row) for row in log_probs]
        return cls(
            tokens=np.asarray(tokens, np.int32),
            counts=np.array([len(ids) for ids, _, _ in rows], np.uint16),
            ids=np.concatenate([ids for ids, _, _ in rows]),
            log_probs=np.concatenate([kept for _, kept, _ in rows]),
            tails=np.array([tail for _, _, tail in rows], np.float32),
            nll=np.asarray(nll, np.float32),
        )

    @property
    def rows(self) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.float32], float]]:
        """Of each its tokens, their logarithms, and the tail."""
        ends = np.cumsum(self.counts, dtype=np.int64)
        for count, end, tail in zip(self.counts, ends, self.tails, strict=True):
            own = slice(int(end) - int(count), int(end))
            yield self.ids[own], self.log_probs[own], float(tail)


@dataclass(frozen=True)
class Header:
    """What a baseline is of. `order` has domain and number of each chunk."""

    ref: str
    digest: str
    size_bytes: int
    corpus: str
    n_ctx: int
    n_vocab: int
    order: tuple[tuple[str, int], ...]
    build: Mapping[str, str]


class BaseFile:
    """One that is open for reading."""

    def __init__(self, archive: zipfile.ZipFile, header: Header) -> None:
        self._archive, self.header = archive, header

    def chunk(self, number: int) -> Kept:
        """Of the chunk at a place of the order; raises `FormatError`."""
        try:
            return Kept(**{name: self._array(f"{number}/{name}") for name in _ARRAYS})
        except _DAMAGE as error:
            raise FormatError(f"the baseline is damaged in chunk {number}: {error}") from error

    def tokens(self, number: int) -> NDArray[np.int32]:
        """Of the chunk at a place of the order; raises `FormatError`."""
        try:
            found: NDArray[np.int32] = self._array(f"{number}/tokens")
        except _DAMAGE as error:
            raise FormatError(f"the baseline is damaged in chunk {number}: {error}") from error
        return found

    def _array(self, name: str) -> Any:
        return np.load(io.BytesIO(self._archive.read(f"{name}.npy")), allow_pickle=False)


_ARRAYS = tuple(Kept.__dataclass_fields__)


class Writer:
    """One that is being written, chunk after chunk."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._n_chunks = 0

    def add(self, kept: Kept) -> None:
        """The next chunk."""
        for name in _ARRAYS:
            buffer = io.BytesIO()
            np.save(buffer, getattr(kept, name), allow_pickle=False)
            self._put(f"{self._n_chunks}/{name}.npy", buffer.getvalue())
        self._n_chunks += 1

    def finish(self, header: Header) -> None:
        """What it is of: a file without it is none."""
        document = {"magic": MAGIC, "schema": SCHEMA, **{name: getattr(header, name) for name in _HEADER}}
        self._put("header.json", json.dumps(document, indent=1).encode())

    def _put(self, name: str, content: bytes) -> None:
        self._archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED, compresslevel=1)


_HEADER = tuple(Header.__dataclass_fields__)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A new file at `path`, which is complete when `finish` was called; raises `OSError`."""
    with zipfile.ZipFile(path, "w") as archive:
        yield Writer(archive)


@contextmanager
def reading(path: Path) -> Iterator[BaseFile]:
    """An existing one; raises `FormatError`."""
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise FormatError(f"{path} is no baseline: {error}") from error
    with archive:
        yield BaseFile(archive, _header(archive, path))


def is_base_file(path: Path) -> bool:
    """Whether a path leads to one, by its first bytes; a damaged one as well."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _header(archive: zipfile.ZipFile, path: Path) -> Header:
    try:
        document = json.loads(archive.read("header.json"))
        if document["magic"] != MAGIC or document["schema"] != SCHEMA:
            raise FormatError(f"{path} is a baseline of another slmkit: schema {document['schema']}")
        values = {name: document[name] for name in _HEADER}
        return Header(**{**values, "order": tuple((str(domain), int(n)) for domain, n in values["order"])})
    except _DAMAGE as error:
        raise FormatError(f"{path} is no baseline: {error}") from error


def _head(row: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.float32], float]:
    """The tokens that are kept, and what the others have."""
    most = min(MOST, len(row))
    ids = np.argpartition(row, len(row) - most)[len(row) - most :] if most < len(row) else np.arange(len(row))
    ids = ids[np.argsort(-row[ids], kind="stable")]
    mass = np.cumsum(np.exp(row[ids].astype(np.float64)))
    n = min(most, int(np.searchsorted(mass, 1 - TAIL)) + 1)
    return ids[:n].astype(np.uint32), row[ids[:n]].astype(np.float32), max(0.0, 1 - float(mass[n - 1]))
