"""Our own encoders against gguf-py's, bit for bit: every pattern of 16 bits, and float32 where it matters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slmkit.ops.convert import encode as encode_module
from slmkit.ops.convert import q8_0
from slmkit.ops.convert.encode import encode, to_f32
from tests.factories import as_dtype

Floats = npt.NDArray[np.float32]
ALL = np.arange(1 << 16, dtype=np.uint16)
FINITE_BF16 = ALL[(ALL & 0x7FFF) < 0x7F80]
FINITE_F16 = ALL[(ALL & 0x7FFF) < 0x7C00].view(np.float16)


def reference(values: Floats, target: str) -> bytes:
    with np.errstate(all="ignore"):
        done: bytes = quantize(np.ascontiguousarray(values), GGMLQuantizationType[target]).tobytes()
    return done


def same(x: npt.NDArray[np.generic], dtype: str, target: str) -> bool:
    return encode(x, dtype, target).tobytes() == reference(to_f32(x, dtype), target)


def mixed(patterns: npt.NDArray[np.generic], rng: np.random.Generator) -> npt.NDArray[np.generic]:
    """All patterns in rows of 64, in an order of chance: a block has large and small values."""
    order = rng.permutation(patterns)
    return order[: order.size // 64 * 64].reshape(-1, 64)


def alike(patterns: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """All patterns in rows of 64, in their own order: a block has values of about one size."""
    return patterns[: patterns.size // 64 * 64].reshape(-1, 64)


@pytest.mark.parametrize("target", ["BF16", "Q8_0"])
def test_every_pattern_of_16_bits(target: str) -> None:
    rng = np.random.default_rng(0)
    for patterns, dtype in ((FINITE_BF16, "BF16"), (FINITE_F16, "F16")):
        assert same(alike(patterns), dtype, target)
        for _ in range(8):
            assert same(mixed(patterns, rng), dtype, target)


@pytest.mark.parametrize("target", ["BF16", "Q8_0"])
def test_a_million_patterns_of_32_bits(target: str) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, (1 << 14, 64), dtype=np.uint32)
    x = bits.view(np.float32)
    x[~np.isfinite(x)] = 1
    assert same(x, "F32", target)
    for scale in 2.0 ** np.arange(-149, 127, 6):
        with np.errstate(all="ignore"):
            y = np.nan_to_num((rng.standard_normal((64, 64)) * scale).astype(np.float32))
        assert same(y, "F32", target)


def test_halves_and_their_neighbours_are_rounded_alike() -> None:
    """With 127 as the largest value the scale is one, and every number of a block is rounded as it stands."""
    halves = np.arange(-127, 127, 0.5, dtype=np.float32)
    near = np.concatenate([halves, np.nextafter(halves, np.float32(-200)), np.nextafter(halves, np.float32(200))])
    blocks = np.zeros((-(-near.size // 31), 32), np.float32)
    blocks[:, 0] = 127
    blocks[:, 1:].flat[: near.size] = near
    assert same(blocks, "F32", "Q8_0")


def test_what_is_not_finite() -> None:
    """A NaN is a NaN in both, with any payload; the rest of the file is not touched by it."""
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    x[3, 5], x[17, 40], x[18, 40] = np.inf, -np.inf, np.nan
    ours = encode(x, "F32", "Q8_0").reshape(-1, 34)
    theirs = np.frombuffer(reference(x, "Q8_0"), np.uint8).reshape(-1, 34)
    odd = [3 * 2, 17 * 2 + 1, 18 * 2 + 1]
    finite = np.setdiff1d(np.arange(len(ours)), odd)
    assert np.array_equal(ours[finite], theirs[finite])
    first, second = (np.ascontiguousarray(rows[odd, :2]).view(np.float16) for rows in (ours, theirs))
    assert np.array_equal(first, second, equal_nan=True)
    nan = x.view(np.uint32) | 0x7F800001
    assert np.isnan(to_f32(encode(nan.view(np.float32), "F32", "BF16").view(np.uint16), "BF16")).all()


@settings(deadline=None)
@given(arrays(np.float32, (3, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_any_finite_numbers(x: Floats) -> None:
    for target in ("BF16", "Q8_0"):
        assert same(x, "F32", target)
        with np.errstate(over="ignore"):
            bits = as_dtype(x, "BF16")
        bits = np.where((bits & 0x7FFF) < 0x7F80, bits, 0).astype(np.uint16)
        assert same(bits, "BF16", target)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("target", ["F32", "F16", "BF16", "Q8_0"])
def test_chunks_longer_than_a_step(dtype: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = as_dtype(np.random.default_rng(0).standard_normal((7, 96), dtype=np.float32), dtype)
    whole = encode(x, dtype, target).tobytes()
    monkeypatch.setattr(encode_module, "_STEP", 128)
    monkeypatch.setattr(q8_0, "_STEP", 128)
    assert encode(x, dtype, target).tobytes() == whole == reference(to_f32(x, dtype), target)
