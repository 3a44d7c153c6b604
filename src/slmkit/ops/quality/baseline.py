"""A saved base, for where the float file does not fit beside the quant."""

from __future__ import annotations

from pathlib import Path

from slmkit.core.quality import Baseline
from slmkit.formats import base_file


def open_baseline(path: Path) -> Baseline:
    """What it is of; raises `FormatError` for another file."""
    with base_file.reading(path) as file:
        header = file.header
    return Baseline(path, header.ref, header.digest, header.size_bytes, header.corpus, header.n_ctx)
