"""What a finished GGUF says of itself, for its manifest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmkit.formats.gguf.header import check_structure, shards


def gguf_facts(path: Path) -> dict[str, Any]:
    """Architecture, parameters, bpw and types of a GGUF with all its shards; raises `GgufError` for a damaged one."""
    headers = [check_structure(p) for p in shards(path)]
    n_params = sum(h.n_params for h in headers)
    tensor_bytes = sum(h.tensor_bytes for h in headers)
    by_type: dict[str, int] = {}
    for header in headers:
        for name, n in header.params_by_type.items():
            by_type[name] = by_type.get(name, 0) + n
    return {
        "architecture": headers[0].architecture,
        "n_params": n_params,
        "n_tensors": sum(len(h.tensors) for h in headers),
        "bpw": tensor_bytes * 8 / n_params if n_params else None,
        "params_by_type": dict(sorted(by_type.items(), key=lambda item: -item[1])),
        "context_length": headers[0].hyper("context_length"),
    }


def now() -> str:
    """ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
