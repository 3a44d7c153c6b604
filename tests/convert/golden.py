"""Golden data: everything that a GGUF holds, as JSON, read by gguf-py and not by our own reader."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden"
SPLIT = ("tiny-llama", "f16", "1M")
"""Case, type and largest shard of the golden data `<case>-<type>-split-<size>`: `{name of the file: description}`."""
LONG_ARRAY, LONG_TEXT = 64, 4096


def describe(path: Path) -> dict[str, Any]:
    """Each metadata key with type and value, each tensor with type, shape and SHA-256, and the SHA-256 of the file.

    Long values are replaced by their length and the SHA-256 of their compact JSON.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    metadata = {k: {"type": [t.name for t in f.types], "value": _short(f.contents())} for k, f in fields.items()}
    tensors = {
        t.name: {
            "type": t.tensor_type.name,
            "shape": [int(n) for n in t.shape],
            "sha256": hashlib.sha256(t.data.tobytes()).hexdigest(),
        }
        for t in reader.tensors
    }
    return {"metadata": metadata, "tensors": tensors, "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def golden(name: str) -> dict[str, Any]:
    """The stored description of that name."""
    value: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    return value


def _short(value: Any) -> Any:
    if (isinstance(value, list) and len(value) > LONG_ARRAY) or (isinstance(value, str) and len(value) > LONG_TEXT):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return {"len": len(value), "sha256": hashlib.sha256(text).hexdigest()}
    return value
