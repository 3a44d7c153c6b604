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
from slmkit.ops.convert.plan import choose_type
from slmkit.ops.convert.weights import (
    Concatenated,
    Generated,
    Permuted,
    Reshaped,
    Sliced,
    Stacked,
    Transposed,
    Weights,
    interleave,
    scaled,
    shifted,
)
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


SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 4)).map(lambda n: (n[0] * 8, n[1]))


def views(x: np.ndarray) -> list[tuple[Weights, np.ndarray]]:
    """Each kind of source over `x`, and what it must hold."""
    half, source = len(x) // 2, Generated(x)
    return [
        (source, x),
        (Permuted(source, 8), interleave(x, 8)),
        (Sliced(source, half, len(x)), x[half:]),
        (Permuted(Sliced(source, 0, len(x)), 4), interleave(x, 4)),
        (Stacked([source, shifted(source, 1.0)]), np.stack([x, x + 1])),
        (Concatenated([Sliced(source, 0, half), scaled(source, 3.0)]), np.concatenate([x[:half], x * 3])),
        (Transposed(source), x.T),
        (Reshaped(source, (x.size, 1)), x.reshape(-1, 1)),
        (Permuted(Generated(x[:, 0]), 8), interleave(x[:, 0], 8)),
    ]


@given(shape=SHAPES, data=st.data())
def test_any_part_of_any_source(shape: tuple[int, int], data: st.DataObject) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for weights, wanted in views(x):
        assert weights.shape == wanted.shape
        start = data.draw(st.integers(0, wanted.size - 1))
        stop = data.draw(st.integers(start + 1, wanted.size))
        assert np.array_equal(weights.read(start, stop), wanted.reshape(-1)[start:stop])


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
    assert np.array_equal(Generated(factors).read(1, 3), factors[1:3])
