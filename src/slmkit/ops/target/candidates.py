"""Which tensors may get which types: those that the engine quantizes, and the types that their rows divide into."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from slmkit.backends.llamacpp.distortion import Probe
from slmkit.backends.llamacpp.quantize import dry_run
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import QuantizeSpec
from slmkit.formats.gguf.header import GgufHeader
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

TYPES = (
    *("IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS"),
    *("Q4_0", "IQ4_NL", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0", "F16"),
)
"""Each tensor gets one of these, or stays as it is."""
_NEED_IMATRIX = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
"""Refused for a matrix of which no importance is known (`tensor_requires_imatrix`, llama-quant.cpp, 0c1e57098)."""


def candidates(headers: Sequence[GgufHeader], important: Container[str]) -> Iterator[Probe]:
    """The tensors of a float GGUF, of all its shards, that the engine quantizes, and the types that each may get:
    smaller than its own, and those that need an imatrix only where it is `important`.
    """
    (planned,) = dry_run(headers[0].path, [(QUANT_TYPES["Q8_0"], QuantizeSpec(pure=True))])
    if isinstance(planned, Exception):
        raise planned
    for header in headers:
        for tensor in header.tensors:
            if planned.types[tensor.name] == tensor.type.name:
                continue
            types = tuple(
                name
                for name in TYPES
                if tensor.shape[0] % GGML_TYPES_BY_NAME[name].block == 0
                and GGML_TYPES_BY_NAME[name].bpw < tensor.type.bpw
                and (tensor.name in important or name not in _NEED_IMATRIX)
            )
            yield Probe(tensor, header.path, header.data_offset + tensor.offset, types)
