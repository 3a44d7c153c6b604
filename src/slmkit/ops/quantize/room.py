"""Whether there is room on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from slmkit.core import units
from slmkit.core.quant import QuantType
from slmkit.errors import DiskFullError
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME


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
