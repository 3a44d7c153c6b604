"""What two GGUFs have otherwise: numbers against a computation of the whole tensors, and every kind of difference."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.artifact import Artifact
from slmkit.core.diff import Diff, TensorDiff
from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.errors import GgufError
from slmkit.formats.gguf.floats import floats, is_readable
from slmkit.formats.gguf.types import GGML_TYPES, GGML_TYPES_BY_NAME, GgmlType, ValueType
from slmkit.ops.diff import diff
from slmkit.ops.split import split
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from tests.ops.ggufs import Gguf, text

F32 = GGML_TYPES_BY_NAME["F32"]


def string(value: str) -> bytes:
    return struct.pack("<I", ValueType.STRING) + text(value)


def strings(values: list[str]) -> bytes:
    return struct.pack("<IIQ", ValueType.ARRAY, ValueType.STRING, len(values)) + b"".join(map(text, values))


def u32(value: int) -> bytes:
    return struct.pack("<II", ValueType.UINT32, value)


KEYS = {
    "general.architecture": string("llama"),
    "general.file_type": u32(1),
    "tokenizer.ggml.tokens": strings([f"t{i}" for i in range(20)]),
    "tokenizer.ggml.eos_token_id": u32(2),
    "tokenizer.chat_template": string("one\ntwo\nthree"),
}


def of(**tensors: np.ndarray) -> Gguf:
    """A file of these tensors, by name, as F32."""
    rows = [(name, tuple(reversed(x.shape)), F32) for name, x in tensors.items()]
    return Gguf(KEYS, rows, data={name: x.astype(np.float32).tobytes() for name, x in tensors.items()})


def compare(a: Gguf, b: Gguf, folder: Path) -> Diff:
    return diff(a.write(folder / "a.gguf"), b.write(folder / "b.gguf"))


def one(found: Diff) -> TensorDiff:
    (tensor,) = found.tensors
    return tensor


def test_errors_are_those_of_whole_tensors(float_artifact: Artifact, session: Session) -> None:
    reports = list(verbs.quantize(ModelRef.parse(float_artifact.model), quant_types(["Q4_K_M", "Q8_0"]), session))
    for report in reports:
        found = diff(float_artifact.path, report.artifact.path)
        whole = [
            {t.name: dequantize(t.data, t.tensor_type).astype(np.float64) for t in gguf.GGUFReader(path).tensors}
            for path in (float_artifact.path, report.artifact.path)
        ]
        assert [t.name for t in found.tensors] == list(whole[0])
        for tensor in found.tensors:
            a, b = (values[tensor.name] for values in whole)
            assert tensor.error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-4, abs=1e-9)
            assert tensor.is_same == np.array_equal(a, b)
        everything = [np.concatenate([values[name].reshape(-1) for name in whole[0]]) for values in whole]
        wanted = np.linalg.norm(everything[0] - everything[1]) / np.linalg.norm(everything[0])
        assert found.error == pytest.approx(wanted, rel=1e-4)
        errors = [kind.error or 0 for kind in found.kinds]
        assert errors == sorted(errors, reverse=True)
        assert [value.key for value in found.metadata if value.key == "general.file_type"]
        assert (found.tokenizer, found.template, found.is_same) == ((), (), False)


def test_shards_are_the_same_as_the_whole(f16: Path, tmp_path: Path) -> None:
    report = split(f16, tmp_path / "x", max_tensors=4)
    for a, b in ((f16, report.first), (report.first, f16), (f16, f16)):
        found = diff(a, b)
        assert found.is_same
        assert found.error == 0
    assert found.a.vocabulary == 512


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(GGML_TYPES)), st.integers(1, 3), st.integers(1, 40))
def test_any_type_is_read_as_gguf_does_or_said_to_be_unknown(number: int, blocks: int, n_rows: int) -> None:
    kind = GGML_TYPES[number]
    data = np.random.default_rng(number).integers(0, 255, n_rows * blocks * kind.block_bytes, np.uint8)
    if not is_readable(kind):
        with pytest.raises(GgufError, match=kind.name):
            floats(data.tobytes(), kind)
        return
    got = floats(data.tobytes(), kind)
    assert got.dtype == np.float32
    assert got.shape == (n_rows * blocks * kind.block,)
    if kind.name[0] == "I" and kind.name[1].isdigit():
        assert np.array_equal(got, data.view(kind.name.lower().replace("i", "int")).astype(np.float32))
    elif kind.name != "F64":
        with np.errstate(all="ignore"):
            wanted = dequantize(data.reshape(n_rows, -1), gguf.GGMLQuantizationType(number))
        assert np.array_equal(got, wanted.reshape(-1), equal_nan=True)


def test_a_tensor_larger_than_a_slab(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((700, 512)).astype(np.float32)
    q8 = GGML_TYPES_BY_NAME["Q8_0"]
    y = quantize(x, gguf.GGMLQuantizationType.Q8_0)
    quantized = replace(of(x=x), tensors=[("x", (512, 700), q8)], data={"x": y.tobytes()})
    tensor = one(compare(of(x=x), quantized, tmp_path))
    z = dequantize(y, gguf.GGMLQuantizationType.Q8_0)
    assert tensor.error == pytest.approx(np.linalg.norm(x - z) / np.linalg.norm(x), rel=1e-5)


def test_what_cannot_be_a_number(tmp_path: Path) -> None:
    zeros, ones, nan = np.zeros(32), np.ones(32), np.full(32, np.nan)
    cases = [(zeros, ones, None, "only"), (ones, nan, None, "no numbers"), (zeros, zeros, 0, ""), (nan, nan, 0, "")]
    for a, b, error, note in cases:
        tensor = one(compare(of(x=a), of(x=b), tmp_path))
        assert (tensor.error, note in tensor.note) == (error, True)


@pytest.mark.parametrize("name", ["Q1_0", "Q8_1", "Q2_0"])
def test_types_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    kind: GgmlType = GGML_TYPES_BY_NAME[name]
    a = Gguf(KEYS, [("x", (kind.block,), kind)], seed=1)
    tensor = one(compare(a, replace(a, seed=2), tmp_path))
    assert tensor.error is None
    assert name in tensor.note
    assert one(compare(a, a, tmp_path)).error == 0


def test_tensors_of_one_file_only_and_of_another_shape(tmp_path: Path) -> None:
    x = np.ones(32)
    a = of(**{"blk.0.attn_q.weight": x, "blk.1.attn_q.weight": x, "output.weight": np.ones((2, 16))})
    b = of(**{"blk.0.attn_q.weight": 2 * x, "output.weight": x, "rope_freqs.weight": x})
    found = compare(a, b, tmp_path)
    assert (found.only("a"), found.only("b")) == (["blk.1.attn_q.weight"], ["rope_freqs.weight"])
    assert {kind.kind: (len(kind.tensors), kind.error) for kind in found.kinds} == {
        "output": (1, None),
        "rope_freqs": (1, None),
        "attn_q": (2, 1.0),
    }
    assert next(t.note for t in found.tensors if t.name == "output.weight") == "other shape"
    assert found.error == 1


def test_metadata_tokenizer_and_template(tmp_path: Path) -> None:
    a = of(x=np.ones(32))
    tokens = [f"t{i}" for i in range(21)]
    tokens[7] = "other"
    changed = {
        **KEYS,
        "general.file_type": u32(2),
        "general.name": string("x"),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.eos_token_id": struct.pack("<Ii", ValueType.INT32, 2),
        "tokenizer.chat_template": string("one\n2\nthree"),
        "split.count": struct.pack("<IH", ValueType.UINT16, 0),
    }
    del changed["general.architecture"]
    found = compare(a, replace(a, keys=changed), tmp_path)
    assert {v.key: (v.a, v.b) for v in found.metadata} == {
        "general.architecture": ("llama", None),
        "general.file_type": (1, 2),
        "general.name": (None, "x"),
    }
    by_key = {v.key: v for v in found.tokenizer}
    assert by_key["tokenizer.ggml.tokens"].first == ((7, "t7", "other"), (20, None, "t20"))
    assert by_key["tokenizer.ggml.tokens"].b == "21 items, 1 other"
    assert by_key["tokenizer.ggml.eos_token_id"].b == "2 (int32)"
    assert found.template[-3:] == ("-two", "+2", " three")
    assert one(found).is_same
    assert not found.is_same


def test_a_template_that_differs_in_its_end_only(tmp_path: Path) -> None:
    a = of(x=np.ones(32))
    b = replace(a, keys={**KEYS, "tokenizer.chat_template": string("one\ntwo\nthree\n")})
    assert "line ends" in compare(a, b, tmp_path).template[0]
