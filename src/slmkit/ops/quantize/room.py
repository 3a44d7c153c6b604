"""Whether there is room: on the disk for the files, in memory for several engines at the same time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from slmkit.core import units
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import DiskFullError
from slmkit.formats.gguf.header import TensorInfo
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.host import memory

ENGINE_BYTES = 128 << 20
"""What a child takes beside its buffers: the interpreter, the library, the pages of the source that it is reading."""
_DEFAULT_BUFFER_BYTES = 8 << 30
"""`LLAMA_QUANT_MAX_BUF_SIZE` of llama-quant.cpp (0c1e57098)."""
_SPARE_SHARE = 0.8
"""Of the memory that is free, so much may be taken."""


def side_by_side(n_types: int, tensors: Sequence[TensorInfo], spec: QuantizeSpec, n_threads: int) -> int:
    """How many types can be made at the same time: each takes memory for its largest tensor.

    The engine uses several threads badly: it waits for all of them after each tensor, and writes while they wait. So
    each gets few, and there is one more than there are threads, for those that start, write or are looked at.
    """
    room = int(memory.available_bytes() * _SPARE_SHARE) // need_bytes(tensors, spec)
    return max(1, min(n_types, n_threads + 1 if n_threads > 1 else 1, room))


def need_bytes(tensors: Sequence[TensorInfo], spec: QuantizeSpec) -> int:
    """Memory of one engine: the largest tensor as F32 and what it becomes (as large as its source at most), or the
    bound of the buffer, whichever is less.
    """
    largest = max((4 * t.n_elements + t.size_bytes for t in tensors), default=0)
    return ENGINE_BYTES + min(largest, spec.max_buffer_bytes or _DEFAULT_BUFFER_BYTES)


def check_disk(quant: QuantType, n_params: int, ref: str, home: Path, taken_bytes: int) -> int:
    """What the file takes at least, all weights in the base type: some tensors get a larger one.

    Raises `DiskFullError` when the disk of `home` has less, apart from `taken_bytes` for files that are being made.
    """
    need = int(n_params * GGML_TYPES_BY_NAME[quant.base].bpw / 8)
    free = shutil.disk_usage(home).free - taken_bytes
    if free < need:
        raise DiskFullError(
            f"{quant} of {ref} needs at least {units.size(need)}; {home} has {units.size(max(free, 0))} free",
            hint="free some: `slmkit list` shows sizes, `slmkit rm REF` deletes",
        )
    return need
