"""Quantized files of one GGUF, all written in one pass over it. Imported in child processes only.

The engine decides which type each tensor gets (its dry run), and its kernels quantize; the order of work is ours.
`llama_model_quantize` makes one file at a time: it turns a whole tensor into F32, waits for its threads, quantizes it,
waits for them, and writes while they wait. Here a thread takes some rows, as many as stay in its core's cache, reads
them once, quantizes them for every file, and writes them to where they belong. The bytes are the same.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import kernels
from slmkit.backends.llamacpp.bindings import Floats, NativeError
from slmkit.backends.llamacpp.kernels import Bytes
from slmkit.backends.llamacpp.quantize_log import NO_SPACE, requires_imatrix
from slmkit.core.quant import FLOATS
from slmkit.errors import is_disk_full
from slmkit.formats.gguf.hollow import without_outer_ones
from slmkit.formats.gguf.model import GgufModel, StoredTensor
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, QUANTIZATION_VERSION, GgmlType
from slmkit.formats.gguf.writer import LAYOUT, Encoded, Entry, boolean, encode_header, f32, string, u32
from slmkit.formats.imatrix import Imatrix

_ELEMENTS = 1 << 17
"""Of a piece: 512 KiB as F32, which a core's own cache holds beside what they become."""
_HELD_BYTES = 12
"""Of a weight at most: as F32, and as what it was and becomes."""
_TOLD_S = 0.1


@dataclass(frozen=True)
class Target:
    """One file: what `llama_model_quantize` would make of the source with these.

    `types` are ggml types by tensor, in the order of the file; `overrides` metadata values in the place of the
    source's, in their order.
    """

    path: Path
    file_type: int
    types: Mapping[str, str]
    overrides: Sequence[tuple[str, Any]] = ()
    imatrix: Imatrix | None = None
    allow_requantize: bool = False
    max_buffer_bytes: int | None = None


def write(source: GgufModel, targets: Sequence[Target], n_threads: int, advance: Callable[[int], None]) -> None:
    """Write all `targets`; `advance` is told now and then how many bytes of the source are done.

    Raises `NativeError`: for what the engine would refuse, before anything is written; for weights that are not finite,
    for a source that ends too early, and with `NO_SPACE` for a disk that is full. `OSError` of another kind passes
    through.
    """
    tensors = {tensor.name: tensor for tensor in source.tensors}
    for target in targets:
        _check(target, tensors)
    with ExitStack() as stack:
        inputs = {path: stack.enter_context(path.open("rb")).fileno() for path in (h.path for h in source.headers)}
        outputs = [_Output(source, target, tensors) for target in targets]
        for output in outputs:
            stack.callback(os.close, output.open())
        bounds = [target.max_buffer_bytes // n_threads // _HELD_BYTES for target in targets if target.max_buffer_bytes]
        pieces = _Pieces(_cut(source.tensors, min([_ELEMENTS, *bounds])), advance)
        with ThreadPoolExecutor(n_threads, thread_name_prefix="rows") as threads:
            workers = [threads.submit(_Worker(inputs, outputs).run, pieces) for _ in range(n_threads)]
        for worker in workers:
            worker.result()


def _check(target: Target, tensors: Mapping[str, StoredTensor]) -> None:
    """What the engine would find out while it quantizes."""
    for name, kind in target.types.items():
        if kind == (tensor := tensors[name]).info.type.name:
            continue
        if tensor.info.type.name not in FLOATS and not target.allow_requantize:
            raise NativeError(f"requantizing from type {tensor.info.type.name.lower()} is disabled")
        if requires_imatrix(name, kind, target.file_type) and _importance(target, tensor) is None:
            raise NativeError(f"Missing importance matrix for tensor {name} in a very low-bit quantization")


def _importance(target: Target, tensor: StoredTensor) -> Floats | None:
    """One row for each matrix of the tensor, `None` where the imatrix has none; raises `NativeError` for another
    model's.
    """
    entry = target.imatrix.entries.get(tensor.name) if target.imatrix else None
    if entry is None:
        return None
    n_columns, n_matrices = tensor.info.shape[0], math.prod(tensor.info.shape[2:])
    means = np.ascontiguousarray(entry.means, np.float32)
    if means.size == n_columns * n_matrices:
        return means.reshape(n_matrices, n_columns)
    if tensor.name == "token_embd.weight":  # often has one of the output's
        return None
    raise NativeError(
        f"imatrix size {means.size} is different from tensor size {n_columns * n_matrices} for {tensor.name}"
    )


class _Output:
    """A file that is being written, from everywhere at the same time."""

    def __init__(self, source: GgufModel, target: Target, tensors: Mapping[str, StoredTensor]) -> None:
        self.path = target.path
        self.types = {name: GGML_TYPES_BY_NAME[kind] for name, kind in target.types.items()}
        self.guides = {
            name: _importance(target, tensor)
            for name, tensor in tensors.items()
            if tensor.info.type != self.types[name]
        }
        entries = [Entry(name, without_outer_ones(tensors[name].shape), kind) for name, kind in self.types.items()]
        self._header = encode_header(_metadata(source, target), entries)
        self._starts: dict[str, int] = {}
        self._size_bytes = len(self._header)
        for entry in entries:
            self._starts[entry.name] = self._size_bytes
            self._size_bytes += LAYOUT.padded(entry.size_bytes)
        self._fd = -1

    def open(self) -> int:
        """Make it, as long as it will be, with its header; the descriptor is the caller's to close."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        with _no_space():
            os.ftruncate(self._fd, self._size_bytes)
            self._write(memoryview(self._header), 0)
        return self._fd

    def put(self, name: str, start: int, data: Bytes) -> None:
        """Write a part of a tensor's data, which begins `start` bytes after the tensor does."""
        with _no_space():
            self._write(data.data, self._starts[name] + start)

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            n = os.pwrite(self._fd, data, at)
            data, at = data[n:], at + n


class _no_space:  # noqa: N801
    """A full disk becomes `NativeError`."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and is_disk_full(error):
            raise NativeError(NO_SPACE) from error


def _metadata(source: GgufModel, target: Target) -> Mapping[str, Encoded]:
    """As the engine writes it: what it sets goes to the end."""
    metadata: dict[str, Encoded] = dict(source.copied_metadata())
    numbers = [("general.quantization_version", QUANTIZATION_VERSION), ("general.file_type", target.file_type)]
    for key, value in (*numbers, *target.overrides):
        metadata.pop(key, None)
        metadata[key] = _encoded(value)
    return metadata


def _encoded(value: Any) -> Encoded:
    match value:
        case bool():
            return boolean(value)
        case int():
            return u32(abs(value))
        case float():
            return f32(value)
        case _:
            return string(str(value))


@dataclass(frozen=True)
class _Piece:
    """Some rows of one matrix of a tensor: `first` is counted through all of its matrices."""

    tensor: StoredTensor
    matrix: int
    first: int
    n_rows: int


def _cut(tensors: Sequence[StoredTensor], most_elements: int) -> Iterator[_Piece]:
    for tensor in tensors:
        n_columns, n_rows, *rest = (*tensor.info.shape, 1)
        most = max(1, most_elements // n_columns)
        for matrix in range(math.prod(rest)):
            for row in range(0, n_rows, most):
                yield _Piece(tensor, matrix, matrix * n_rows + row, min(most, n_rows - row))


@dataclass
class _Pieces:
    """What is still to be done, for several threads; none is left once one of them has failed."""

    todo: Iterator[_Piece]
    advance: Callable[[int], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _done_bytes: int = 0
    _told: float = field(default_factory=time.monotonic)

    def take(self) -> _Piece | None:
        with self._lock:
            return next(self.todo, None)

    def done(self, n_bytes: int) -> None:
        with self._lock:
            self._done_bytes += n_bytes
            if time.monotonic() - self._told < _TOLD_S:
                return
            told, self._done_bytes, self._told = self._done_bytes, 0, time.monotonic()
        self.advance(told)

    def stop(self) -> None:
        with self._lock:
            self.todo = iter(())


@dataclass
class _Worker:
    """One thread with its buffers."""

    inputs: Mapping[Path, int]
    outputs: Sequence[_Output]
    _buffers: dict[str, Bytes] = field(default_factory=dict)

    def run(self, pieces: _Pieces) -> None:
        """Until there is nothing to do."""
        try:
            while piece := pieces.take():
                pieces.done(self._quantize(piece))
        except BaseException:
            pieces.stop()
            raise

    def _quantize(self, piece: _Piece) -> int:
        info = piece.tensor.info
        n_columns = info.shape[0]
        raw = self._read(piece, info.type.size_bytes(n_columns))
        if not kernels.is_sound(raw, info.type):
            raise NativeError(f"tensor '{info.name}' has invalid data")
        rows: Floats | None = None
        made: dict[tuple[str, int], Bytes] = {}  # Q4_0 and Q5_1 both have an output in Q6_K
        for output in self.outputs:
            kind = output.types[info.name]
            row_bytes = kind.size_bytes(n_columns)
            data = raw
            if kind != info.type:
                if rows is None:
                    rows = self._floats(raw, info.type, piece.n_rows * n_columns).reshape(piece.n_rows, n_columns)
                guide = output.guides[info.name]
                if (known := made.get((kind.name, id(guide)))) is None:
                    known = made[kind.name, id(guide)] = self._buffer(f"blocks {len(made)}", piece.n_rows * row_bytes)
                    kernels.quantize(rows, kind, None if guide is None else guide[piece.matrix], known)
                    if not kernels.is_sound(known, kind):
                        raise NativeError(f"tensor '{info.name}' cannot be {kind.name}: it would not be finite")
                data = known
            output.put(info.name, piece.first * row_bytes, data)
        return raw.size

    def _read(self, piece: _Piece, row_bytes: int) -> Bytes:
        header, info = piece.tensor.header, piece.tensor.info
        raw = self._buffer("raw", piece.n_rows * row_bytes)
        at = header.data_offset + info.offset + piece.first * row_bytes
        rest = raw.data
        while rest:
            n = os.preadv(self.inputs[header.path], [rest], at)
            if not n:
                raise NativeError(f"{header.path.name} ends inside tensor '{info.name}'")
            rest, at = rest[n:], at + n
        return raw

    def _floats(self, raw: Bytes, kind: GgmlType, n: int) -> Floats:
        if kind.name == "F32":
            return raw.view(np.float32)
        floats = self._buffer("floats", 4 * n).view(np.float32)
        kernels.dequantize(raw, kind, floats)
        return floats

    def _buffer(self, name: str, n_bytes: int) -> Bytes:
        found = self._buffers.get(name)
        if found is None or found.size < n_bytes:
            found = self._buffers[name] = np.empty(n_bytes, np.uint8)
        return found[:n_bytes]
