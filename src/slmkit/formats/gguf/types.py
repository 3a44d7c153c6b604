"""The element types of GGUF tensors and metadata.

Block and byte sizes are those of `ggml.c`'s `type_traits` table at llama.cpp 0c1e57098
(https://github.com/ggml-org/llama.cpp/blob/0c1e57098/ggml/src/ggml.c); a test compares them with the gguf package.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import IntEnum

from slmkit.errors import UnknownTypeError


@dataclass(frozen=True)
class GgmlType:
    """A tensor's element type: `block` weights are stored in `block_bytes` bytes."""

    id: int
    name: str
    block: int
    block_bytes: int

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return self.block_bytes * 8 / self.block

    def size_bytes(self, n_elements: int) -> int:
        """Of `n_elements` weights, a whole number of blocks."""
        return n_elements // self.block * self.block_bytes


GGML_TYPES: dict[int, GgmlType] = {
    t.id: t
    for t in (
        GgmlType(0, "F32", 1, 4),
        GgmlType(1, "F16", 1, 2),
        GgmlType(2, "Q4_0", 32, 18),
        GgmlType(3, "Q4_1", 32, 20),
        GgmlType(6, "Q5_0", 32, 22),
        GgmlType(7, "Q5_1", 32, 24),
        GgmlType(8, "Q8_0", 32, 34),
        GgmlType(9, "Q8_1", 32, 40),
        GgmlType(10, "Q2_K", 256, 84),
        GgmlType(11, "Q3_K", 256, 110),
        GgmlType(12, "Q4_K", 256, 144),
        GgmlType(13, "Q5_K", 256, 176),
        GgmlType(14, "Q6_K", 256, 210),
        GgmlType(15, "Q8_K", 256, 292),
        GgmlType(16, "IQ2_XXS", 256, 66),
        GgmlType(17, "IQ2_XS", 256, 74),
        GgmlType(18, "IQ3_XXS", 256, 98),
        GgmlType(19, "IQ1_S", 256, 50),
        GgmlType(20, "IQ4_NL", 32, 18),
        GgmlType(21, "IQ3_S", 256, 110),
        GgmlType(22, "IQ2_S", 256, 82),
        GgmlType(23, "IQ4_XS", 256, 136),
        GgmlType(24, "I8", 1, 1),
        GgmlType(25, "I16", 1, 2),
        GgmlType(26, "I32", 1, 4),
        GgmlType(27, "I64", 1, 8),
        GgmlType(28, "F64", 1, 8),
        GgmlType(29, "IQ1_M", 256, 56),
        GgmlType(30, "BF16", 1, 2),
        GgmlType(34, "TQ1_0", 256, 54),
        GgmlType(35, "TQ2_0", 256, 66),
        GgmlType(39, "MXFP4", 32, 17),
        GgmlType(40, "NVFP4", 64, 36),
        GgmlType(41, "Q1_0", 128, 18),
        GgmlType(42, "Q2_0", 64, 18),
    )
}
GGML_TYPES_BY_NAME: dict[str, GgmlType] = {t.name: t for t in GGML_TYPES.values()}

_NOT_FOR_WEIGHTS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
"""Types of activations and indices: `ggml_quantize_chunk` of ggml.c makes none of them."""


def weight_type(text: str) -> GgmlType:
    """The type of that name, in any case, that weights can be given; raises `UnknownTypeError` with near names."""
    name = text.strip().upper()
    names = [known for known in GGML_TYPES_BY_NAME if known not in _NOT_FOR_WEIGHTS]
    if name in names:
        return GGML_TYPES_BY_NAME[name]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"one of {', '.join(names)}"
    raise UnknownTypeError(f"no type of a tensor: {text!r}", hint=hint)


# Types that other programs write and llama.cpp does not load.
FOREIGN_TYPES = {36: "i2_s, Microsoft's BitNet format, which only bitnet.cpp loads"}


class ValueType(IntEnum):
    """The types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12
