"""Quantized checkpoints: formats that llama.cpp's converter does not read, against plain numpy; what is refused.

The formats that it reads are in `families/quantized.py`, with golden data.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.errors import ConvertError
from slmkit.formats.safetensors import Entry, read_file, write_file
from slmkit.ops.convert import convert
from slmkit.ops.convert.config import Config, read_config
from slmkit.ops.convert.dequantize import dequantized
from slmkit.ops.convert.dequantize.sources import Packed, float8_values
from slmkit.ops.convert.stored import read_weights
from slmkit.ops.convert.weights import Generated, Weights, floats
from tests.convert.families import cases
from tests.convert.families.quantized import (
    FP8,
    GPTQ,
    INTS,
    Parts,
    compressed,
    float8,
    fp8_blocks,
    gptq,
    int8,
    make_quantized,
    packed,
    small,
    words,
)
from tests.convert.test_errors import configure

NAME = "model.layers.0.mlp.down_proj"
ROWS, COLUMNS = 96, 160
Make = Callable[[tuple[int, ...], np.random.Generator], Parts]


def down_proj(folder: Path, settings: Mapping[str, Any], parts: Make) -> Weights:
    """The dequantized matrix of the checkpoint."""
    return read_weights(read_config(make_quantized(folder, settings, parts)))[f"{NAME}.weight"]


class Kept:
    """Remembers for one shape what was stored, so that the test can compute what it stands for."""

    def __init__(self, parts: Make) -> None:
        self.parts = parts
        self.stored: dict[str, np.ndarray] = {}

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        made = self.parts(shape, rng)
        if shape == (ROWS, COLUMNS):
            self.stored = {suffix: data for suffix, (_, data) in made.items()}
        return made


def check(folder: Path, settings: Mapping[str, Any], parts: Make, wanted: Callable[..., np.ndarray]) -> None:
    kept = Kept(parts)
    found = down_proj(folder, settings, kept)
    expected = wanted(kept.stored).astype(np.float32)
    assert (found.shape, found.dtype) == ((ROWS, COLUMNS), "F32")
    assert np.array_equal(floats(found).reshape(ROWS, COLUMNS), expected)
    rng = np.random.default_rng(1)
    for start, stop in np.sort(rng.integers(0, ROWS * COLUMNS, (20, 2)), axis=1):
        assert np.array_equal(found.read(start, stop + 1), expected.reshape(-1)[start : stop + 1])


def f32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


# ------------------------------------------------------------------ AWQ

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}


def interleaved(numbers: np.ndarray) -> np.ndarray:
    """Eight columns in a 32-bit integer, as AutoAWQ's `WQLinear_GEMM.from_linear` puts them."""
    out = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
    for column in range(out.shape[1]):
        for place, which in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
            out[:, column] |= numbers[:, 8 * column + which].astype(np.uint32) << np.uint32(4 * place)
    return out.view(np.int32)


def test_awq(tmp_path: Path) -> None:
    codes: dict[str, np.ndarray] = {}

    def parts(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        rows, columns = shape
        weights, zeros = rng.integers(0, 16, (columns, rows)), rng.integers(0, 16, (columns // 32, rows))
        if shape == (ROWS, COLUMNS):
            codes.update(weights=weights, zeros=zeros)
        return {
            "qweight": ("I32", interleaved(weights)),
            "qzeros": ("I32", interleaved(zeros)),
            "scales": small(rng, columns // 32, rows),
        }

    def wanted(stored: dict[str, Any]) -> Any:
        zeros, scales = (np.repeat(x, 32, axis=0) for x in (codes["zeros"], f32(stored["scales"])))
        return (f32(codes["weights"] - zeros) * scales).T

    check(tmp_path / "a", AWQ, parts, wanted)


# ------------------------------------------------------------------ bitsandbytes

INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def llm_int8(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    rows = small(rng, shape[0], dtype="F32")
    return {"weight": int8(rng, shape), "SCB": rows, "weight_format": ("U8", np.array(0, np.uint8))}


def test_llm_int8(tmp_path: Path) -> None:
    def wanted(stored: dict[str, Any]) -> Any:
        return f32(stored["weight"]) * stored["SCB"][:, None] * np.float32(1 / 127)

    check(tmp_path / "a", INT8, llm_int8, wanted)
    check(tmp_path / "b", {"load_in_8bit": True}, llm_int8, wanted)


def four_bits(nested: bool) -> Make:
    def parts(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        n = int(np.prod(shape))
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": list(shape)}
        out: Parts = {
            "weight": ("U8", rng.integers(0, 256, (n // 2, 1), np.uint8)),
            "weight.quant_map": ("F32", np.sort(rng.uniform(-1, 1, 16)).astype(np.float32)),
            "weight.absmax": small(rng, n // 64, dtype="F32"),
        }
        if nested:
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.25}
            out |= {
                "weight.absmax": ("U8", rng.integers(0, 256, n // 64, np.uint8)),
                "weight.nested_absmax": small(rng, -(-n // 64 // 256), dtype="F32"),
                "weight.nested_quant_map": ("F32", np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)),
            }
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        return {**out, "weight.quant_state.bitsandbytes__nf4": ("U8", text)}

    return parts


@pytest.mark.parametrize("nested", [False, True])
def test_four_bits(tmp_path: Path, nested: bool) -> None:
    def wanted(stored: dict[str, Any]) -> Any:
        codes = [code for byte in stored["weight"].reshape(-1) for code in (byte >> 4, byte & 15)]
        absmax = stored["weight.absmax"]
        if nested:
            blocks = np.repeat(stored["weight.nested_absmax"], 256)[: len(absmax)]
            absmax = stored["weight.nested_quant_map"][absmax] * blocks + np.float32(0.25)
        return (stored["weight.quant_map"][codes] * np.repeat(absmax, 64)).reshape(ROWS, COLUMNS)

    check(tmp_path / "a", NF4, four_bits(nested), wanted)


# ------------------------------------------------------------------ scales that llama.cpp's converter does not know


def fp8_tensor(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
    """As AutoFP8 writes it."""
    return {"weight": float8(rng, shape), "weight_scale": small(rng, 1, dtype="F32"), "input_scale": small(rng, 1)}


def test_autofp8(tmp_path: Path) -> None:
    def wanted(stored: dict[str, Any]) -> Any:
        return float8_values("F8_E4M3")[stored["weight"]] * stored["weight_scale"]

    check(tmp_path / "a", FP8, fp8_tensor, wanted)
    check(tmp_path / "b", compressed("float-quantized", strategy="tensor"), fp8_tensor, wanted)


def test_groups_of_bytes_with_zero_points(tmp_path: Path) -> None:
    def parts(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        groups = (shape[0], shape[1] // 32)
        return {
            "weight": int8(rng, shape),
            "weight_scale": small(rng, *groups),
            "weight_zero_point": int8(rng, groups),
        }

    def wanted(stored: dict[str, Any]) -> Any:
        scales, zeros = (np.repeat(f32(stored[f"weight_{n}"]), 32, axis=1) for n in ("scale", "zero_point"))
        return (f32(stored["weight"]) - zeros) * scales

    check(tmp_path / "a", compressed("int-quantized", strategy="group", group_size=32), parts, wanted)


def test_packed_rows(tmp_path: Path) -> None:
    def parts(shape: tuple[int, ...], rng: np.random.Generator) -> Parts:
        made = packed(4, False)(shape, rng)
        return {**made, "weight_scale": small(rng, shape[0], 1)}

    def wanted(stored: dict[str, Any]) -> Any:
        codes = stored["weight_packed"].view(np.uint32)[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15
        return f32(codes.reshape(ROWS, COLUMNS).astype(np.int64) - 8) * f32(stored["weight_scale"])

    check(tmp_path / "a", compressed("pack-quantized", strategy="channel", num_bits=4), parts, wanted)


def test_gptq_without_an_index(tmp_path: Path) -> None:
    """Inputs are in order then."""
    with_index, without = Kept(gptq(4, True)), Kept(lambda shape, rng: _less(gptq(4, True)(shape, rng), "g_idx"))
    settings = {**GPTQ, "bits": 4}
    first, second = down_proj(tmp_path / "a", settings, with_index), down_proj(tmp_path / "b", settings, without)
    assert np.array_equal(floats(first), floats(second))


def _less(parts: Parts, *suffixes: str) -> Parts:
    return {suffix: data for suffix, data in parts.items() if suffix not in suffixes}


# ------------------------------------------------------------------ numbers


def test_eight_bit_floats() -> None:
    """Some of them, from the table 1 of https://arxiv.org/abs/2209.05433."""
    e4m3, e5m2 = float8_values("F8_E4M3"), float8_values("F8_E5M2")
    assert (e4m3[0x7E], e4m3[0xFE], e4m3[0x08], e4m3[0x01], e4m3[0x80]) == (448, -448, 2.0**-6, 2.0**-9, 0)
    assert (e5m2[0x7B], e5m2[0xFB], e5m2[0x04], e5m2[0x01]) == (57344, -57344, 2.0**-14, 2.0**-16)
    assert np.isnan(e4m3[[0x7F, 0xFF]]).all()
    assert (e5m2[0x7C], e5m2[0xFC]) == (np.inf, -np.inf)
    assert np.isnan(e5m2[[0x7D, 0xFF]]).all()


@given(data=st.data(), axis=st.integers(0, 1), bits=st.sampled_from([1, 2, 4, 8]))
def test_any_tile_of_packed_numbers(data: st.DataObject, axis: int, bits: int) -> None:
    rng = np.random.default_rng(3)
    n = 32 // bits
    shape = (3 * n - 1, 5) if axis == 0 else (5, 3 * n - 1)
    wanted = rng.integers(0, 1 << bits, shape)
    padded = np.pad(wanted, [(0, 1), (0, 0)] if axis == 0 else [(0, 0), (0, 1)])
    groups = padded.reshape(3, n, 5).swapaxes(1, 2) if axis == 0 else padded.reshape(5, 3, n)
    stored = (groups.astype(np.uint64) << np.arange(0, 32, bits, dtype=np.uint64)).sum(-1).astype(np.uint32)
    source = Packed(Generated(stored.view(np.int32), "I32"), bits, axis, shape)
    top, left = (data.draw(st.integers(0, size - 1)) for size in shape)
    bottom, right = data.draw(st.integers(top + 1, shape[0])), data.draw(st.integers(left + 1, shape[1]))
    assert np.array_equal(source.tile(top, bottom, left, right), wanted[top:bottom, left:right])
    start = data.draw(st.integers(0, wanted.size - 1))
    stop = data.draw(st.integers(start + 1, wanted.size))
    assert np.array_equal(source.read(start, stop), wanted.reshape(-1)[start:stop])


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({**FP8, "weight_block_size": [64, 64]}, fp8_blocks),
        ({**GPTQ, "bits": 4}, gptq(4, False)),
        (compressed("pack-quantized", strategy="group", num_bits=4, **INTS), packed(4, True)),
        (NF4, four_bits(True)),
    ],
)
def test_memory_is_bounded(tmp_path: Path, settings: Mapping[str, Any], parts: Make) -> None:
    """A matrix of 16 million weights, 64 MiB as float32, read as the converter reads it."""
    rows = columns = 4096
    path, rng = tmp_path / "a.safetensors", np.random.default_rng(0)
    made = parts((rows, columns), rng).items()
    write_file(path, [Entry(f"m.{suffix}", dtype, data.shape, [data]) for suffix, (dtype, data) in made])
    config = Config(tmp_path / "config.json", {"quantization_config": dict(settings)})
    found = dequantized(config, read_file(path))["m.weight"]
    assert found.shape == (rows, columns)
    found.read(0, 1)
    tracemalloc.start()
    for start in range(0, rows * columns, 1 << 20):
        found.read(start, start + (1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


# ------------------------------------------------------------------ what is refused


def refused(folder: Path, match: str) -> ConvertError:
    target = folder / "out.gguf"
    with pytest.raises(ConvertError, match=match) as caught:
        convert(folder, target)
    assert not target.exists()
    return caught.value


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"quant_method": "hqq"}, r"already quantized \(hqq\).*only awq, bitnet, bitsandbytes, .* can be read"),
        ({"quant_method": "mxfp4"}, r"\(mxfp4\)"),
        ({}, "does not name a `quant_method`"),
        ([1], "does not name a `quant_method`"),
        ({**GPTQ, "bits": 3}, "3 bits"),
        ({**GPTQ, "bits": "4"}, "`bits` is '4', only 2, 4, 8 can be read"),
        ({**GPTQ, "bits": 4, "checkpoint_format": "marlin"}, "'marlin', only gptq and gptq_v2"),
        ({**AWQ, "version": "gemv"}, "autoawq's gemv kernel"),
        ({**AWQ, "bits": 3}, "`bits` is 3"),
        ({**FP8, "weight_block_size": [128]}, r"`weight_block_size` is \[128\]"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4, only FP8"),
        ({"quant_method": "compressed-tensors"}, "does not say how"),
        (compressed("nvfp4-pack-quantized", strategy="group"), "`nvfp4-pack-quantized`"),
        (compressed("pack-quantized", strategy="group", num_bits=3, **INTS), "3 bits"),
        (compressed("int-quantized", strategy="token"), "'token'"),
        ({**compressed("int-quantized"), "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {}, "b": {}}}, "2 ways"),
    ],
)
def test_other_formats(tmp_path: Path, settings: Any, match: str) -> None:
    folder = configure(make_quantized(tmp_path / "a", {}, gptq(4, True)), quantization_config=settings)
    error = refused(folder, match)
    assert error.hint == "convert the original, unquantized checkpoint, then quantize it here"


def test_the_hint_names_the_original(tmp_path: Path) -> None:
    folder = make_quantized(tmp_path / "a", {"quant_method": "hqq"}, gptq(4, True))
    configure(folder, _name_or_path="org/from-config")
    assert refused(folder, "hqq").hint == "`slmkit convert org/from-config`, then quantize it here"
    (folder / "README.md").write_text("---\nbase_model:\n- org/from-card\n---\n")
    assert refused(folder, "hqq").hint == "`slmkit convert org/from-card`, then quantize it here"
    configure(folder, _name_or_path="/home/someone/model")
    (folder / "README.md").write_text("---\nbase_model: [\n---\n")
    assert "original" in str(refused(folder, "hqq").hint)


GPTQ_4 = gptq(4, True)


@pytest.mark.parametrize(
    ("settings", "parts", "match"),
    [
        ({**GPTQ, "bits": 4}, lambda s, r: _less(GPTQ_4(s, r), "qzeros"), r"lacks `.*\.qzeros`, without which"),
        ({**GPTQ, "bits": 8}, GPTQ_4, r"qweight`, \[\d+, \d+\], does not go with its scales"),
        ({**GPTQ, "bits": 4}, lambda s, r: {**GPTQ_4(s, r), "scales": words(r, 5, s[0])}, r"scales` is I32"),
        ({**GPTQ, "bits": 4}, lambda s, r: {**GPTQ_4(s, r), "g_idx": ("I32", np.full(s[1], 99, np.int32))}, "g_idx"),
        (FP8, lambda s, r: {"weight": float8(r, s)}, r"is F8_E4M3 and has no scales"),
        (FP8, lambda s, r: {"weight_scale_inv": small(r, 1)}, r"lacks `.*weight`"),
        ({**FP8, "weight_block_size": [64, 64]}, fp8_tensor, r"does not go with its scales .* blocks of \[64, 64\]"),
        (FP8, lambda s, r: {"weight": float8(r, s), "weight_scale": small(r, 3)}, "does not go with its scales"),
        (FP8, lambda s, r: {"weight": small(r, *s), "weight_scale": small(r, 1)}, r"is F16 .* which fp8 never has"),
        (INT8, lambda s, r: {**llm_int8(s, r), "weight_format": ("U8", np.array(2, np.uint8))}, "`weight_format`"),
        (INT8, lambda s, r: _less(llm_int8(s, r), "SCB"), "has type (I8|U8)"),
        (NF4, lambda s, r: {**four_bits(False)(s, r), "weight.absmax": small(r, 3, dtype="F32")}, "does not describe"),
        (NF4, lambda s, r: {**four_bits(True)(s, r), "weight.nested_absmax": small(r, 3, dtype="F32")}, "not describe"),
        (
            NF4,
            lambda s, r: {
                **four_bits(False)(s, r),
                "weight.quant_state.bitsandbytes__nf4": ("U8", np.frombuffer(b'{"shape": "x"}', np.uint8)),
            },
            "does not describe",
        ),
        ({}, GPTQ_4, "has type I32, which is no plain floating point"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, settings: Mapping[str, Any], parts: Make, match: str) -> None:
    refused(make_quantized(tmp_path / "a", settings, parts), match)


def test_the_user_is_told(tmp_path: Path) -> None:
    from slmkit.ops.convert.plan import make_plan

    for name in ("gptq-4bit", "fp8-static"):
        plan = make_plan(cases()[name].make(tmp_path / name))
        assert any("is quantized" in remark and "dequantized" in remark for remark in plan.remarks)
    assert not make_plan(cases()["halves"].make(tmp_path / "halves")).remarks


def test_settings_of_modelopt_in_their_own_file(tmp_path: Path) -> None:
    folder = cases()["fp8-modelopt"].make(tmp_path / "a")
    wanted = {name: floats(w) for name, w in read_weights(read_config(folder)).items()}
    configure(folder, quantization_config=...)
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    found = {name: floats(w) for name, w in read_weights(read_config(folder)).items()}
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in found)
