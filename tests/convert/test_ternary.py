"""Weights of three values: rounding, unpacking, and checkpoints that are not what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.errors import ConvertError
from slmkit.ops.convert import convert
from slmkit.ops.convert.ternary import Ternarized, Unpacked
from slmkit.ops.convert.weights import Generated, Permuted, floats
from tests.convert.families.bitnet import make_bitnet, make_packed, pack
from tests.convert.notes import Warnings
from tests.convert.test_errors import configure, refused, rewrite
from tests.factories import as_dtype, make_llama


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return make_packed(tmp_path / "packed")


def unpacked(values: np.ndarray, scale: float, divided: bool) -> Unpacked:
    return Unpacked(Generated(pack(values), "U8"), Generated(np.array([scale], np.float32)), divided)


@given(quarter=st.integers(1, 5), columns=st.integers(1, 7), data=st.data())
def test_any_part_of_a_packed_matrix(quarter: int, columns: int, data: st.DataObject) -> None:
    values = np.random.default_rng(quarter).integers(-1, 2, (4 * quarter, columns))
    start = data.draw(st.integers(0, values.size - 1))
    stop = data.draw(st.integers(start + 1, values.size))
    for divided, wanted in ((True, values / 4), (False, values * 4)):
        source = unpacked(values, 4, divided)
        assert source.shape == values.shape
        assert np.array_equal(source.read(start, stop), wanted.reshape(-1)[start:stop].astype(np.float32))
        assert source.read(start, stop).dtype == np.float32


def test_heads_of_a_packed_matrix_are_permuted() -> None:
    values = np.random.default_rng(0).integers(-1, 2, (8, 3))
    assert np.array_equal(floats(Permuted(unpacked(values, 1, True), 4)).reshape(8, 3)[1], values[2])


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rounding_to_three_values(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((64, 40)).astype(np.float32)
    source = Ternarized(Generated(as_dtype(x, dtype), dtype))
    plain = floats(source.source)
    scale = np.abs(plain.astype(np.float64)).mean()
    whole = floats(source)
    assert source.dtype == ("F16" if dtype == "F16" else "F32")
    assert np.allclose(whole, np.clip(np.round(plain / scale), -1, 1) * scale, rtol=1e-3 if dtype == "F16" else 1e-6)
    assert len(np.unique(np.abs(whole))) == 2
    assert np.array_equal(floats(source, 100, 1000), whole[100:1000])


def test_weights_that_are_all_but_zero() -> None:
    assert Ternarized(Generated(np.zeros((2, 2), np.float32))).scale == np.float32(1e-5)


def test_bits_that_are_no_weight(packed: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    damaged = np.full((128, 256), 0b11000000, np.uint8)
    rewrite(packed, {name: damaged, f"{name}_scale": np.ones(1, np.float32)}, drop="layers.1.mlp.up_proj")
    refused(packed, ConvertError, "must be -1, 0 or 1, and some are 2")


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"use_rms_norm": True}, "normalize their input"),
        ({"linear_class": "autobitlinear", "quantization_mode": "online"}, "`online`"),
    ],
)
def test_what_llama_cpp_does_not_do(packed: Path, how: dict[str, Any], match: str) -> None:
    refused(configure(packed, quantization_config={"quant_method": "bitnet", **how}), ConvertError, match)


def test_the_scale_is_multiplied_with_or_divided_by(packed: Path) -> None:
    """`AutoBitLinear` of transformers multiplies, `BitLinear` divides; llama.cpp's converter always divides."""
    convert(packed, packed / "a.gguf", outtype="f32")
    how = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    convert(configure(packed, quantization_config=how), packed / "b.gguf", outtype="f32")
    divided, multiplied = (largest(packed / name) for name in ("a.gguf", "b.gguf"))
    assert np.isclose(divided * multiplied, 1)
    assert multiplied > 1


def largest(gguf: Path) -> float:
    from gguf import GGUFReader

    return float(next(t.data.max() for t in GGUFReader(gguf).tensors if t.name == "blk.0.attn_q.weight"))


def test_scales_without_weights_and_the_other_way_round(packed: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(packed, {f"{name}_scale": np.ones(1, np.float32)}, drop="layers.0.mlp.up_proj")
    refused(packed, ConvertError, f"`{name}_scale`, and no tensor")
    rewrite(packed, {name: np.zeros((128, 256), np.uint8)}, drop="layers.0.mlp.up_proj")
    refused(packed, ConvertError, rf"`{name}` \(U8\) is no packed matrix with one scale")
    two: dict[str, np.ndarray] = {name: np.zeros((128, 256), np.uint8), f"{name}_scale": np.ones(2, np.float32)}
    rewrite(packed, two, drop="layers.0.mlp.up_proj")
    refused(packed, ConvertError, "no packed matrix with one scale")


def test_packed_bytes_without_a_word_in_the_config(packed: Path) -> None:
    refused(configure(packed, quantization_config=...), ConvertError, "has type U8")


def test_a_head_of_its_own(tmp_path: Path) -> None:
    """llama.cpp's graph takes the embedding, whatever the file has."""
    folder = make_bitnet(tmp_path / "a")
    refused(configure(folder, tie_word_embeddings=False), ConvertError, "`tie_word_embeddings` is False")


def test_three_values_for_a_model_that_was_not_trained_so(tmp_path: Path) -> None:
    warnings = Warnings()
    convert(make_llama(tmp_path / "llama"), tmp_path / "out.gguf", outtype="tq2_0", progress=warnings)
    assert any("tq2_0 keeps three values" in text for text in warnings.texts)
    warnings = Warnings()
    convert(make_packed(tmp_path / "packed"), tmp_path / "out.gguf", outtype="tq2_0", progress=warnings)
    convert(make_bitnet(tmp_path / "bitnet"), tmp_path / "out.gguf", outtype="tq1_0", progress=warnings)
    assert warnings.texts == []
