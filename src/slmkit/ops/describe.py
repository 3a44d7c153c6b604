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

_TYPES = "|".join(sorted(QUANT_TYPES, key=len, reverse=True))
_LAST = re.compile(rf"(?P<option>-(?:output|embedding))?[-_.](?P<type>{_TYPES})$", re.IGNORECASE)
_LABEL = rf"(?!(?:{_TYPES})(?:-|$)|.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{{0,47}}"
_LABELLED = re.compile(rf"-(?P<type>{_TYPES})-(?P<label>{_LABEL})$")


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


def named_variant(name: str) -> tuple[str, str] | None:
    """The quant type in a name without suffix, and its label: `Q4_0` of `model-Q4_0`, in any case, has none; as slmkit
    names files `model-Q4_0-pure-output-Q8_0` is `Q4_0`, labelled `pure-output-Q8_0`. `None` when there is no type.
    """
    last, labelled = _LAST.search(name), _LABELLED.search(name)
    if labelled and (last is None or last["option"]):
        return labelled["type"], labelled["label"]
    return (last["type"].upper(), "") if last else None


def named_type(name: str) -> str | None:
    """The quant type of the same."""
    found = named_variant(name)
    return found[0] if found else None


def declared_type(metadata: Mapping[str, Any]) -> str | None:
    """The quant type that `general.file_type` is the number of; `None` when there is none."""
    ftype = metadata.get("general.file_type")
    return next((quant.name for quant in QUANT_TYPES.values() if quant.ftype == ftype), None)


def now() -> str:
    """ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
