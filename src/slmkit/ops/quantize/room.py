"""Whether there is room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from slmkit.backends.llamacpp.quantize import DryRun, dry_run
from slmkit.core.quant import QuantType
from slmkit.core.units import size
from slmkit.errors import DiskFullError, SlmkitError
from slmkit.formats.gguf.header import read_header, shards
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Layout
from slmkit.ops.quantize import source as source_files
from slmkit.ops.quantize.make import Order

_FREE_SOME = "free some: `slmkit list` shows sizes, `slmkit rm REF` deletes"
_ADDED_BYTES = 1024
"""What the engine may add to the metadata."""
_MOST_BYTES = 4
"""Of a weight, in F32."""


def too_large(orders: Mapping[QuantType, Order], home: Path) -> dict[QuantType, SlmkitError]:
    """Those of `orders`, which are of one source, that the disk of `home` has no room for beside the ones before them.

    The engine is asked what they take, unless there is room whatever they are.
    """
    free = shutil.disk_usage(home).free
    most = sum(order.source.size_bytes + _MOST_BYTES * order.source.facts["n_params"] for order in orders.values())
    refused: dict[QuantType, SlmkitError] = {}
    for quant, need in (needed(orders) if free < most else {}).items():
        if need <= free:
            free -= need
            continue
        refused[quant] = DiskFullError(
            f"{quant} of {orders[quant].source.ref} needs {size(need)}; {home} has {size(free)} free", hint=_FREE_SOME
        )
    return refused


def full(quant: QuantType, order: Order, home: Path) -> DiskFullError:
    """The error for a disk that has no room left while the file is written."""
    takes = "".join(f", which takes {size(need)}" for need in needed({quant: order}).values())
    return DiskFullError(
        f"no space left on the disk of {home} for {quant} of {order.source.ref}{takes}", hint=_FREE_SOME
    )


def needed(orders: Mapping[QuantType, Order]) -> dict[QuantType, int]:
    """The sizes of the files, of one source, that the engine would make; hardly less than 1 KiB too large."""
    source = next(iter(orders.values())).source
    headers = [read_header(path) for path in shards(source.path)]
    beside = sum(header.data_offset for header in headers) + _ADDED_BYTES
    tensors = [tensor for header in headers for tensor in header.tensors]
    padded = Layout(alignment=headers[0].alignment).padded

    def takes(order: Order, answer: DryRun) -> int:
        made = source_files.kept(tensors, order.spec)
        sizes = (GGML_TYPES_BY_NAME[kind].size_bytes(made[name].n_elements) for name, kind in answer.types.items())
        return beside + sum(map(padded, sizes))

    answers = dry_run(source.path, [(quant, order.spec) for quant, order in orders.items()])
    return {
        quant: takes(order, answer)
        for (quant, order), answer in zip(orders.items(), answers, strict=True)
        if isinstance(answer, DryRun)  # else the engine says why not when it is to make it
    }
