"""Whether a file is what its type says: how many of its parameters have the type, and how many fell back to another.

A mixture such as Q4_K_M gives some tensors a larger type on purpose. A fallback is what nobody asked for: the rows of a
tensor do not divide into the blocks of its type (`tensor_type_fallback` of llama.cpp's llama-quant.cpp, 0c1e57098).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slmkit.backends.llamacpp.quantize_log import Fallback
from slmkit.core.quant import QuantType
from slmkit.core.units import percent
from slmkit.formats.gguf.header import TensorInfo
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

_WORTH_A_NOTE = 0.5
"""Below this share of the type itself a file is called what it hardly is."""

_WORTH_A_WORD = 0.001


def label_facts(quant: QuantType, tensors: Sequence[TensorInfo], fallbacks: Sequence[Fallback]) -> dict[str, Any]:
    """Of a file with these tensors, for its manifest: `label` is the type that most of it should have,
    `on_label_share` and `fallback_share` are shares of all parameters, `fallback` groups what fell back, most first.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    n_params = sum(tensor.n_elements for tensor in tensors) or 1
    groups: Counter[tuple[str, str, int]] = Counter()
    for fallback in fallbacks:
        tensor = by_name[fallback.name]
        groups[fallback.wanted, fallback.got, tensor.shape[0]] += tensor.n_elements
    on_label = sum(tensor.n_elements for tensor in tensors if tensor.type.name == quant.base)
    return {
        "label": quant.base,
        "on_label_share": on_label / n_params,
        "n_fallback": len(fallbacks),
        "fallback_share": groups.total() / n_params,
        "fallback": [
            {"wanted": wanted, "got": got, "row": row, "n_params": n} for (wanted, got, row), n in groups.most_common()
        ],
    }


def label_note(variant: str, facts: Mapping[str, Any]) -> str | None:
    """`Q4_K_M: 12.0 % of the parameters are Q4_K; 61.0 % fell back from Q4_K to Q5_0, because rows of 576 do not
    divide into blocks of 256`; nothing for a file that is what it is called.
    """
    share = facts.get("on_label_share")
    if share is None or not (facts["fallback"] or share < _WORTH_A_NOTE):
        return None
    is_label = f"{variant}: {percent(share)} of the parameters are {facts['label']}"
    if not facts["fallback"]:
        most, n = next(iter(facts["params_by_type"].items()))
        return f"{is_label}; {percent(n / facts['n_params'])} are {most}, by llama.cpp's mixture for this type"
    fell: Counter[tuple[str, str]] = Counter()
    for group in facts["fallback"]:
        fell[group["wanted"], group["got"]] += group["n_params"]
    shares = _listed(
        f"{percent(n / facts['n_params'])} fell back from {wanted} to {got}" for (wanted, got), n in fell.most_common()
    )
    rows = _listed(f"{row:,}" for row in sorted({group["row"] for group in facts["fallback"]}))
    block = max(GGML_TYPES_BY_NAME[group["wanted"]].block for group in facts["fallback"])
    return f"{is_label}; {shares}, because rows of {rows} do not divide into blocks of {block}"


def mix_note(variant: str, facts: Mapping[str, Any]) -> str:
    """`MIX-4.50bpw: 43.8 % of the parameters are Q4_1, 31.0 % IQ4_NL and 25.2 % Q8_0`; less than 0.1 % is left out."""
    shares = {kind: n / facts["n_params"] for kind, n in facts["params_by_type"].items()}
    (most, share), *others = [(kind, share) for kind, share in shares.items() if share >= _WORTH_A_WORD]
    words = [f"{percent(share)} of the parameters are {most}", *(f"{percent(n)} {kind}" for kind, n in others)]
    return f"{variant}: {_listed(words)}"


def _listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last
