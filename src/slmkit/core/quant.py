"""The quant types of llama.cpp, by the names its users know.

Numbers are `enum llama_ftype` of include/llama.h, the list is that of tools/quantize/quantize.cpp, both at
llama.cpp 0c1e57098 (https://github.com/ggml-org/llama.cpp/tree/0c1e57098). A test compares them with the engine.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from slmkit.errors import UnknownTypeError

Family = Literal["float", "legacy", "k", "iq", "ternary", "fp4", "binary"]


@dataclass(frozen=True)
class QuantType:
    """One target of `quantize`.

    `ftype` is the engine's number for the whole file, `base` the ggml type that most matrices get.
    """

    name: str
    ftype: int
    base: str
    family: Family

    def __str__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        """F32, F16 or BF16: what `convert` makes."""
        return self.family == "float"

    @property
    def may_need_imatrix(self) -> bool:
        """Whether there are models that it cannot be made of without an importance matrix: the engine knows which."""
        return self.family == "iq" or self.name == "Q2_K_S"


QUANT_TYPES: dict[str, QuantType] = {
    t.name: t
    for t in (
        QuantType("F32", 0, "F32", "float"),
        QuantType("F16", 1, "F16", "float"),
        QuantType("BF16", 32, "BF16", "float"),
        QuantType("Q4_0", 2, "Q4_0", "legacy"),
        QuantType("Q4_1", 3, "Q4_1", "legacy"),
        QuantType("Q5_0", 8, "Q5_0", "legacy"),
        QuantType("Q5_1", 9, "Q5_1", "legacy"),
        QuantType("Q8_0", 7, "Q8_0", "legacy"),
        QuantType("Q2_K_S", 21, "Q2_K", "k"),
        QuantType("Q2_K", 10, "Q2_K", "k"),
        QuantType("Q3_K_S", 11, "Q3_K", "k"),
        QuantType("Q3_K_M", 12, "Q3_K", "k"),
        QuantType("Q3_K_L", 13, "Q3_K", "k"),
        QuantType("Q4_K_S", 14, "Q4_K", "k"),
        QuantType("Q4_K_M", 15, "Q4_K", "k"),
        QuantType("Q5_K_S", 16, "Q5_K", "k"),
        QuantType("Q5_K_M", 17, "Q5_K", "k"),
        QuantType("Q6_K", 18, "Q6_K", "k"),
        QuantType("IQ1_S", 24, "IQ1_S", "iq"),
        QuantType("IQ1_M", 31, "IQ1_M", "iq"),
        QuantType("IQ2_XXS", 19, "IQ2_XXS", "iq"),
        QuantType("IQ2_XS", 20, "IQ2_XS", "iq"),
        QuantType("IQ2_S", 28, "IQ2_XS", "iq"),
        QuantType("IQ2_M", 29, "IQ2_S", "iq"),
        QuantType("IQ3_XXS", 23, "IQ3_XXS", "iq"),
        QuantType("IQ3_XS", 22, "IQ3_S", "iq"),
        QuantType("IQ3_S", 26, "IQ3_S", "iq"),
        QuantType("IQ3_M", 27, "IQ3_S", "iq"),
        QuantType("IQ4_XS", 30, "IQ4_XS", "iq"),
        QuantType("IQ4_NL", 25, "IQ4_NL", "iq"),
        QuantType("TQ1_0", 36, "TQ1_0", "ternary"),
        QuantType("TQ2_0", 37, "TQ2_0", "ternary"),
        QuantType("MXFP4_MOE", 38, "MXFP4", "fp4"),
        QuantType("Q1_0", 40, "Q1_0", "binary"),
        QuantType("Q2_0", 41, "Q2_0", "binary"),
    )
}


FLOATS = ("F32", "BF16", "F16")
"""What can be quantized, the most exact first."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32"}
"""Other names for types: llama-quantize's own, and what GGUF repositories call their float files."""


def quant_type(text: str) -> QuantType:
    """The type of that name, in any case; raises `UnknownTypeError` with the nearest names."""
    name = text.strip().upper().replace("-", "_")
    name = ALIASES.get(name, name)
    if name in QUANT_TYPES:
        return QUANT_TYPES[name]
    near = difflib.get_close_matches(name, QUANT_TYPES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"one of {', '.join(QUANT_TYPES)}"
    raise UnknownTypeError(f"no quant type {text!r}", hint=hint)


def canonical(label: str) -> str:
    """The one spelling of a variant: `fp16` is `F16`; a label that is no type of ours (`UD-Q4_K_XL`) stays as it is."""
    name = label.upper()
    return ALIASES.get(name, name) if ALIASES.get(name, name) in QUANT_TYPES else label


def quant_types(texts: Iterable[str]) -> tuple[QuantType, ...]:
    """Several types, each text one or a comma-separated list; doubles are dropped, order is kept. No text is no type,
    but texts without any are refused.
    """
    texts = list(texts)
    names = [name for text in texts for name in text.split(",") if name.strip()]
    if texts and not names:
        raise UnknownTypeError(f"no quant type in {','.join(texts)!r}", hint="`Q4_0`, or `Q4_0,Q8_0`, say")
    return tuple(dict.fromkeys(quant_type(name) for name in names))
