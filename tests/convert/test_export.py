"""A GGUF becomes a checkpoint that converts back to the same GGUF, and that other libraries can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from slmkit.errors import ConvertError, DiskFullError, GgufError, UnsupportedArchError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, ValueType
from slmkit.formats.gguf.writer import Entry, Value, string, u32, write_gguf
from slmkit.formats.safetensors import read_checkpoint
from slmkit.ops.convert import convert
from slmkit.ops.export import export_hf
from slmkit.ops.split import split
from tests.convert.families import cases
from tests.convert.golden import describe
from tests.factories import make_llama

ROUND_TRIPS = [
    "tiny-llama",
    "tiny-llama3",
    "tiny-qwen2",
    "tiny-qwen2-untied",
    "biases",
    "linear",
    "yarn",
    "padded-vocab",
    "tiny-gemma3",
]
PROVENANCE = ("general.tags", "general.license")


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    convert(cases()[name].make(tmp_path / "a" / name), tmp_path / "first.gguf", outtype="bf16")
    report = export_hf(tmp_path / "first.gguf", tmp_path / "b" / name)
    assert report.dtype == report.source_type == "BF16"
    convert(report.path, tmp_path / "second.gguf", outtype="bf16")
    first, second = describe(tmp_path / "first.gguf"), describe(tmp_path / "second.gguf")
    if name == "biases":  # float32 norms and biases went through bfloat16
        first["tensors"] = {k: v for k, v in first["tensors"].items() if v["type"] != "F32"}
        second["tensors"] = {k: v for k, v in second["tensors"].items() if v["type"] != "F32"}
    assert second["tensors"] == first["tensors"]
    for found in (first, second):
        for key in (*PROVENANCE, "tokenizer.ggml.padding_token_id"):
            found["metadata"].pop(key, None)
    assert second["metadata"] == first["metadata"]


def test_weights_are_the_dequantized_ones(tmp_path: Path) -> None:
    convert(make_llama(tmp_path / "a", n_layers=1), tmp_path / "a.gguf", outtype="q8_0")
    report = export_hf(tmp_path / "a.gguf", tmp_path / "out")
    assert (report.source_type, report.dtype, report.architecture) == ("Q8_0", "BF16", "llama")
    assert "dequantized from Q8_0" in (tmp_path / "out" / "README.md").read_text("utf-8")
    stored = {t.name: t for t in GGUFReader(tmp_path / "a.gguf").tensors}
    tensor = stored["blk.0.ffn_up.weight"]
    wanted = dequantize(tensor.data, tensor.tensor_type)
    (bits,) = read_checkpoint(tmp_path / "out")["model.layers.0.mlp.up_proj.weight"].chunks()
    assert np.allclose((bits.astype(np.uint32) << 16).view(np.float32), wanted.reshape(-1), rtol=2**-8)


def test_the_real_one_reads_as_published(smollm2: Path) -> None:
    from tokenizers import Tokenizer

    config = json.loads((smollm2 / "config.json").read_text("utf-8"))
    shape = (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"], config["vocab_size"])
    assert shape == (576, 30, 9, 49152)
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-5
    assert "dequantized from Q4_1" in (smollm2 / "README.md").read_text("utf-8")
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    text = "<|im_start|>user\nIt's 2024: naïve 北京 🚀<|im_end|>"
    ids = tokenizer.encode(text).ids
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_sentencepiece_model_loads(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = make_llama(tmp_path / "a", n_layers=1, hidden=64)
    convert(folder, tmp_path / "a.gguf")
    export_hf(tmp_path / "a.gguf", tmp_path / "out")
    first, second = SentencePieceProcessor(), SentencePieceProcessor()
    first.LoadFromFile(str(folder / "tokenizer.model"))
    second.LoadFromFile(str(tmp_path / "out" / "tokenizer.model"))
    text = "the who said what? Zé 42"
    assert second.encode(text) == first.encode(text)


def test_gemma3(tmp_path: Path) -> None:
    """Other names, norms without the 1 that `convert` adds, what the file does not say of the layers."""
    convert(make_llama(tmp_path / "a", n_layers=7, hidden=64, tie_word_embeddings=True), tmp_path / "a.gguf")
    header = read_header(tmp_path / "a.gguf")
    metadata = {
        key.replace("llama.", "gemma3."): Value(header.value_types[key], value, _element(value))
        for key, value in header.metadata.items()
        if not key.startswith("llama.rope")
    }
    metadata["general.architecture"] = string("gemma3")
    metadata |= {f"gemma3.{key}": u32(n) for key, n in (("attention.key_length", 16), ("attention.sliding_window", 32))}
    norms = {"post_attention_norm": 64, "post_ffw_norm": 64, "attn_q_norm": 16, "attn_k_norm": 16}
    f32 = GGML_TYPES_BY_NAME["F32"]
    more = [Entry(f"blk.{i}.{name}.weight", (n,), f32) for i in range(7) for name, n in norms.items()]
    raw = (tmp_path / "a.gguf").read_bytes()
    old = [Entry(t.name, tuple(reversed(t.shape)), t.type) for t in header.tensors]
    starts = [header.data_offset + t.offset for t in header.tensors]
    chunks = [raw[at : at + t.size_bytes] for at, t in zip(starts, header.tensors, strict=True)]
    norm = np.array([1.5, 0.75] * 32, np.float32)
    chunks += [norm[: entry.shape[0]].tobytes() for entry in more]
    write_gguf(tmp_path / "gemma3.gguf", metadata, [*old, *more], chunks)

    out = export_hf(tmp_path / "gemma3.gguf", tmp_path / "out").path
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["layer_types"] == ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
    wanted = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32, "rope_local_base_freq": 10000.0}
    assert wanted.items() <= config.items()
    assert "hidden_act" not in config
    tensors = read_checkpoint(out)
    assert len(tensors) == 2 + 7 * 13
    layer = "model.layers.6."
    for name in ("self_attn.q_norm", "post_attention_layernorm", "post_feedforward_layernorm"):
        (values,) = tensors[f"{layer}{name}.weight"].chunks()
        assert (values.astype(np.uint32) << 16).view(np.float32)[:2].tolist() == [0.5, -0.25]
    assert f"{layer}pre_feedforward_layernorm.weight" in tensors


def test_a_folder_in_use(tmp_path: Path) -> None:
    convert(make_llama(tmp_path / "a", n_layers=1, hidden=64), tmp_path / "a.gguf")
    out = tmp_path / "out"
    out.mkdir()
    export_hf(tmp_path / "a.gguf", out)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ConvertError, match="exists and is not empty"):
        export_hf(tmp_path / "a.gguf", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == before == ["a", "a.gguf", "out"]


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, {"general.architecture": string("mamba")}, [], [])
    with pytest.raises(UnsupportedArchError, match="mamba") as caught:
        export_hf(path, tmp_path / "out")
    assert caught.value.hint == "supported: llama, qwen2, gemma3"
    entry = Entry("token_embd.weight", (4, 4), GGML_TYPES_BY_NAME["F32"])
    write_gguf(path, {"general.architecture": string("llama")}, [entry], [bytes(64)])
    with pytest.raises(GgufError, match=r"lacks `llama\."):
        export_hf(path, tmp_path / "out")
    path.write_bytes(b"nothing")
    with pytest.raises(GgufError, match="not a GGUF file"):
        export_hf(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    convert(make_llama(tmp_path / "a", n_layers=1, hidden=64), tmp_path / "a.gguf")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(DiskFullError, match="the checkpoint needs"):
        export_hf(tmp_path / "a.gguf", tmp_path / "out")


def test_a_split_gguf_is_the_same_model(tmp_path: Path) -> None:
    """Only the first shard has the hyper-parameters, and q and k must be put back in order in all of them."""
    convert(make_llama(tmp_path / "a", n_layers=2), tmp_path / "whole.gguf", outtype="bf16")
    split(tmp_path / "whole.gguf", tmp_path / "x", max_tensors=7)
    whole = export_hf(tmp_path / "whole.gguf", tmp_path / "whole").path / "model.safetensors"
    for n in (1, 3):
        parts = export_hf(tmp_path / f"x-{n:05d}-of-00003.gguf", tmp_path / f"parts{n}").path / "model.safetensors"
        assert parts.read_bytes() == whole.read_bytes()


def _element(value: object) -> ValueType | None:
    if not isinstance(value, list):
        return None
    kinds = {str: ValueType.STRING, float: ValueType.FLOAT32, int: ValueType.INT32}
    return kinds[type(value[0])]
