"""What a finished GGUF says of itself, for its manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmkit.core.quant import QUANT_TYPES
from slmkit.formats.gguf.model import GgufModel, open_model
from slmkit.formats.gguf.types import GgmlType


def gguf_facts(path: Path) -> dict[str, Any]:
    """Architecture, parameters, bpw and types of a GGUF with all its shards; raises `GgufError` for a damaged one."""
    return model_facts(open_model(path))


def model_facts(model: GgufModel) -> dict[str, Any]:
    """The same of one whose headers have been read."""
    tensors = ((tensor.info.type, tensor.info.n_elements) for tensor in model.tensors)
    return facts(model.architecture, model.first.hyper("context_length"), tensors)


def facts(architecture: str, context_length: int | None, tensors: Iterable[tuple[GgmlType, int]]) -> dict[str, Any]:
    """The same from its parts: of each tensor its type and number of weights."""
    by_type: Counter[GgmlType] = Counter()
    n_tensors = 0
    for kind, n_elements in tensors:
        by_type[kind] += n_elements
        n_tensors += 1
    n_params = by_type.total()
    size_bytes = sum(kind.size_bytes(n) for kind, n in by_type.items())
    return {
        "architecture": architecture,
        "n_params": n_params,
        "n_tensors": n_tensors,
        "bpw": size_bytes * 8 / n_params if n_params else None,
        "params_by_type": {kind.name: n for kind, n in by_type.most_common()},
        "context_length": context_length,
    }


def named_type(name: str) -> str | None:
    """The quant type at the end of a name without suffix: `model-Q4_0`; `None` when it has none."""
    for kind in sorted(QUANT_TYPES, key=len, reverse=True):
        if re.search(rf"[-_.]{kind}$", name, re.IGNORECASE):
            return kind
    return None


def declared_type(metadata: Mapping[str, Any]) -> str | None:
    """The quant type that `general.file_type` is the number of; `None` when there is none."""
    ftype = metadata.get("general.file_type")
    return next((quant.name for quant in QUANT_TYPES.values() if quant.ftype == ftype), None)


def now() -> str:
    """ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
