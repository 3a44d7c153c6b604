"""Conversion of numbers, order of rows, and what is done with each tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slmkit.errors import ConvertError
from slmkit.formats.gguf.rope import llama3_factors, llama3_scaling
from slmkit.ops.convert.encode import bf16_to_f16, encode, to_f32
from slmkit.ops.convert.pipeline import choose_type
from slmkit.ops.convert.rows import Generated, Permuted, interleave
from slmkit.ops.export.pipeline import deinterleave
from tests.factories import LLAMA3_ROPE, as_dtype

ALL = np.arange(1 << 16, dtype=np.uint16)
"""Every bfloat16 there is."""


def values(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_every_bfloat16_becomes_the_right_half() -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = values(ALL).astype(np.float16).view(np.uint16)
    assert np.array_equal(bf16_to_f16(ALL), wanted)


def test_every_bfloat16_becomes_the_right_float() -> None:
    assert np.array_equal(to_f32(ALL, "BF16").view(np.uint32), values(ALL).view(np.uint32))


def test_bfloat16_stays_but_for_signalling_nans() -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    wanted = quantize(values(ALL).reshape(1, -1), GGMLQuantizationType.BF16).view(np.uint16).reshape(-1)
    assert np.array_equal(encode(ALL, "BF16", "BF16"), wanted)


@given(arrays(np.float32, (3, 64), elements=st.floats(-60000, 60000, width=32)))
def test_floats_are_rounded_as_numpy_and_gguf_do(x: np.ndarray) -> None:
    assert np.array_equal(encode(x, "F32", "F16"), x.astype(np.float16))
    assert np.array_equal(encode(x, "F32", "BF16").view(np.uint16).reshape(3, 64), as_dtype(x, "BF16"))
    assert encode(x, "F32", "F32") is x


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("target", ["F32", "F16", "BF16", "Q8_0"])
def test_every_pair_of_types_goes_over_float32(dtype: str, target: str) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    x = as_dtype(np.random.default_rng(0).standard_normal((4, 64), dtype=np.float32), dtype)
    wanted = quantize(to_f32(x, dtype), GGMLQuantizationType[target])
    assert encode(x, dtype, target).tobytes() == wanted.tobytes()


def test_integers_are_no_weights() -> None:
    with pytest.raises(ConvertError, match="I32"):
        encode(np.zeros(4, np.int32), "I32", "F16")
    with pytest.raises(ConvertError, match="Q4_0"):
        encode(np.zeros((1, 32), np.float32), "F32", "Q4_0")


@given(heads=st.integers(1, 5), half=st.integers(1, 8), columns=st.integers(0, 3))
def test_rotary_rows_go_there_and_back(heads: int, half: int, columns: int) -> None:
    shape = (heads * 2 * half,) if columns == 0 else (heads * 2 * half, columns)
    x = np.arange(np.prod(shape)).reshape(shape)
    there = interleave(x, 2 * half)
    assert np.array_equal(deinterleave(there, 2 * half), x)
    assert np.array_equal(there[1], x[half])


@given(heads=st.integers(1, 6), rows=st.integers(1, 40))
def test_chunks_of_any_size_permute_alike(heads: int, rows: int) -> None:
    x = np.random.default_rng(0).standard_normal((heads * 8, 3)).astype(np.float32)

    class Chunked:
        dtype, shape = "F32", x.shape

        def chunks(self, rows: int):  # type: ignore[no-untyped-def]
            yield from (x[i : i + rows] for i in range(0, len(x), rows))

    assert np.array_equal(np.concatenate(list(Permuted(Chunked(), 8).chunks(rows))), interleave(x, 8))


def test_types_by_name_and_shape() -> None:
    assert choose_type("blk.0.attn_q.weight", (64, 64), "Q8_0").name == "Q8_0"
    assert choose_type("blk.0.attn_q.weight", (64, 72), "Q8_0").name == "F16"
    assert choose_type("blk.0.attn_q.bias", (64,), "F16").name == "F32"
    assert choose_type("blk.0.attn_norm.weight", (64, 64), "BF16").name == "F32"
    assert choose_type("output.weight", (64, 64), "F32").name == "F32"


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_llama3_scaling_is_found_again(factor: float, head_dim: int) -> None:
    rope = {**LLAMA3_ROPE, "factor": factor}
    factors = llama3_factors({**rope, "rope_theta": 500000.0}, head_dim)
    assert llama3_scaling(factors, 500000.0) == rope
    assert llama3_scaling(factors, 10000.0) is None
    assert next(Generated(factors).chunks(1)) is factors
