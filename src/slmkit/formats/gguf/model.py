"""One model in one GGUF or in several shards: headers that belong together, and the bytes of its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slmkit.errors import GgufError
from slmkit.formats.gguf.header import GgufHeader, TensorInfo, check_structure, shards
from slmkit.formats.gguf.split import COUNT, KEYS, NUMBER, TENSORS
from slmkit.formats.gguf.writer import Copied, Encoded, Entry, Layout, Written, write_gguf

PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, and the file it is in."""

    header: GgufHeader
    info: TensorInfo

    @property
    def name(self) -> str:
        """Such as `blk.0.attn_q.weight`."""
        return self.info.name

    @property
    def shape(self) -> tuple[int, ...]:
        """In numpy order: the last dimension is the row."""
        return tuple(reversed(self.info.shape))

    @property
    def entry(self) -> Entry:
        """Its row in the table of another file."""
        return Entry(self.info.name, self.shape, self.info.type)

    def read(self, start: int, n_bytes: int) -> bytes:
        """`n_bytes` of its data from byte `start` on; raises `GgufError` when the file ends before."""
        try:
            with self.header.path.open("rb", buffering=0) as file:
                file.seek(self.header.data_offset + self.info.offset + start)
                data = file.read(n_bytes)
                while 0 < len(data) < n_bytes:
                    more = file.read(n_bytes - len(data))
                    if not more:
                        break
                    data += more
        except OSError as error:
            raise GgufError(f"cannot read {self.header.path}: {error.strerror}") from error
        if len(data) != n_bytes:
            raise GgufError(f"{self.header.path} ends inside tensor `{self.name}`")
        return data

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """All of its data."""
        for start in range(0, self.info.size_bytes, piece_bytes):
            yield self.read(start, min(piece_bytes, self.info.size_bytes - start))


@dataclass(frozen=True)
class GgufModel:
    """The headers of all its files, in order."""

    headers: tuple[GgufHeader, ...]

    @property
    def first(self) -> GgufHeader:
        """The one that has the metadata."""
        return self.headers[0]

    @property
    def layout(self) -> Layout:
        """Of the first file."""
        return Layout(self.first.version, self.first.alignment)

    @property
    def path(self) -> Path:
        """What programs are given to load it."""
        return self.first.path

    @property
    def architecture(self) -> str:
        """See `GgufHeader`."""
        return self.first.architecture

    @property
    def metadata(self) -> dict[str, Any]:
        """What the first file says, apart from how the model is split."""
        return {key: value for key, value in self.first.metadata.items() if key not in KEYS}

    @cached_property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """Of all files."""
        return tuple(StoredTensor(header, info) for header in self.headers for info in header.tensors)

    @property
    def n_params(self) -> int:
        """Weights in all tensors."""
        return sum(header.n_params for header in self.headers)

    @property
    def tensor_bytes(self) -> int:
        """Of all weights."""
        return sum(header.tensor_bytes for header in self.headers)

    @property
    def bpw(self) -> float | None:
        """Bits per weight; `None` for a file without tensors."""
        return self.tensor_bytes * 8 / self.n_params if self.n_params else None

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(header.path.stat().st_size for header in self.headers)

    def copied_metadata(self) -> dict[str, Copied]:
        """`metadata` as it stands in the file, byte for byte."""
        header = self.first
        with header.path.open("rb") as file:
            head = file.read(header.data_offset)
        return {key: Copied(header.value_types[key], head[header.value_spans[key]]) for key in self.metadata}


def open_model(path: Path) -> GgufModel:
    """The model that a GGUF is, or is a shard of, with every tensor inside its file.

    Raises `GgufError` for a damaged or missing file, and for shards that are not of one model as far as they tell:
    only the first has metadata, so those of two models of one shape cannot be told apart.
    """
    found = shards(path)
    headers = tuple(check_structure(file) for file in found)
    if len(headers) > 1 or headers[0].metadata.get(COUNT, 0) not in (0, 1):  # llama-gguf-split leaves 0 when it merges
        for no, header in enumerate(headers):
            _check_place(header, no, len(headers))
        _check_whole(headers)
    names = Counter(info.name for header in headers for info in header.tensors)
    doubled = [name for name, n in names.items() if n > 1]
    if doubled:
        where = "the shards" if len(headers) > 1 else str(path)
        raise GgufError(f"{where} have tensor `{doubled[0]}` twice: {_files(headers)}")
    return GgufModel(headers)


def copy(
    target: Path,
    metadata: Mapping[str, Encoded],
    tensors: Sequence[StoredTensor],
    layout: Layout,
    advance: Callable[[int], None],
) -> Written:
    """Write a file of `tensors` as they are, in pieces; `advance` is told the bytes that are done."""

    def pieces() -> Iterator[bytes]:
        for tensor in tensors:
            for piece in tensor.pieces():
                yield piece
                advance(len(piece))

    return write_gguf(target, metadata, [tensor.entry for tensor in tensors], pieces(), layout)


def _check_place(header: GgufHeader, no: int, n: int) -> None:
    """Raise when a file says that it is another shard than by its name."""
    count, number = header.metadata.get(COUNT), header.metadata.get(NUMBER)
    if count != n:
        what = "does not say that it is a shard" if count is None else f"says that it is one of {count} shards"
        raise GgufError(
            f"{header.path} {what}, and {n} {'is' if n == 1 else 'are'} here",
            hint="shards keep their names, `NAME-00001-of-00003.gguf`, and lie in one folder",
        )
    if number != no:
        raise GgufError(
            f"{header.path} is number {no} by its name, counted from 0, and number {number} by its metadata",
            hint="give it its old name again, or get all shards from one place",
        )


def _check_whole(headers: tuple[GgufHeader, ...]) -> None:
    """Raise when the shards are not all of one model."""
    n_tensors, first = sum(len(header.tensors) for header in headers), headers[0]
    for header in headers:
        says = header.metadata.get(TENSORS)
        if says != n_tensors or header.architecture not in ("unknown", first.architecture):
            raise GgufError(
                f"{header.path} is not of the same model as the other shards: it speaks of {says} tensors in all "
                f"({header.architecture}), and there are {n_tensors} ({first.architecture})",
                hint="get all shards from one place",
            )


def _files(headers: tuple[GgufHeader, ...]) -> str:
    return ", ".join(header.path.name for header in headers[:3])
