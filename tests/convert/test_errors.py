"""Checkpoints that cannot be converted: the right error, which names file and fault, and no file left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.core.progress import SILENT
from slmkit.errors import (
    ConvertError,
    DiskFullError,
    SafetensorsError,
    SlmkitError,
    TokenizerError,
    UnclaimedTensorsError,
    UnknownPreTokenizerError,
    UnknownTypeError,
    UnsupportedArchError,
)
from slmkit.formats.safetensors import Entry, read_checkpoint, write_file
from slmkit.ops.convert import architectures, convert, resolve_type
from slmkit.ops.convert.plan import make_plan
from tests.factories import make_llama, make_qwen2, write_json


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "llama", n_layers=1, hidden=64)


def configure(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; `...` removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), **changes}
    write_json(path, {k: v for k, v in config.items() if v is not ...})
    return folder


def rewrite(folder: Path, add: dict[str, np.ndarray], drop: str = "-") -> None:
    old = [t for t in read_checkpoint(folder).values() if drop not in t.name]
    kept = [Entry(t.name, t.dtype, t.shape, list(t.chunks())) for t in old]
    new = [Entry(n, {"f": "F32", "i": "I64", "u": "U8"}[a.dtype.kind], a.shape, [a]) for n, a in add.items()]
    write_file(folder / "model.safetensors", kept + new)


def refused(folder: Path, error: type[SlmkitError], match: str) -> SlmkitError:
    target = folder / "out.gguf"
    with pytest.raises(error, match=match) as caught:
        convert(folder, target)
    assert type(caught.value) is error
    assert not target.exists()
    return caught.value


def test_another_architecture(llama: Path) -> None:
    error = refused(configure(llama, architectures=["BertModel"]), UnsupportedArchError, "BertModel")
    assert error.hint is not None
    assert all(name in error.hint for name in ("--converter upstream", " llama, ", " qwen2, "))
    refused(configure(llama, architectures=["MixtralForCausalLM"]), UnsupportedArchError, "MixtralForCausalLM")


def test_architectures_are_found_by_themselves() -> None:
    assert {found.name for found in architectures().values()} >= {"llama", "qwen2"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architectures": ...}, r"config\.json lacks `architectures`"),
        ({"architectures": []}, "`architectures`"),
        ({"hidden_size": ...}, r"config\.json lacks `hidden_size`"),
        ({"num_hidden_layers": "two"}, "`num_hidden_layers` must be a positive whole number, not 'two'"),
        ({"num_attention_heads": 0}, "`num_attention_heads`"),
        ({"rms_norm_eps": []}, r"`rms_norm_eps` must be a number"),
        ({"vocab_size": ...}, "lacks `vocab_size`"),
        ({"vocab_size": 500}, "500, but the embedding has 512 rows"),
        ({"num_hidden_layers": 2}, r"lacks 9 tensors: blk\.1\.attn_norm\.weight"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, "heads"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "`dynamic` rope scaling"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"already quantized \(gptq\)"),
        ({"quantization_config": {}}, "already quantized"),
    ],
)
def test_bad_configs(llama: Path, changes: dict[str, Any], match: str) -> None:
    refused(configure(llama, **changes), ConvertError, match)


def test_broken_json(llama: Path) -> None:
    (llama / "config.json").write_text("{")
    refused(llama, ConvertError, r"config\.json is not JSON")
    (llama / "config.json").unlink()
    refused(llama, ConvertError, r"has no config\.json")
    with pytest.raises(ConvertError, match="is not a folder"):
        convert(llama / "none", llama / "out.gguf")


def test_every_unclaimed_tensor_is_named(llama: Path) -> None:
    extra = np.zeros((2, 2), np.float32)
    rewrite(llama, {"model.vision.weight": extra, "model.layers.0.mlp.up_proj.scale": extra, "lm_head.extra": extra})
    error = refused(llama, UnclaimedTensorsError, "3 tensors")
    assert all(n in error.message for n in ("model.vision.weight", "model.layers.0.mlp.up_proj.scale", "lm_head.extra"))


def test_layers_beyond_the_last(llama: Path) -> None:
    rewrite(llama, {"model.layers.1.mlp.up_proj.weight": np.zeros((2, 2), np.float32)})
    refused(llama, UnclaimedTensorsError, r"model\.layers\.1\.mlp\.up_proj\.weight")


def test_an_output_of_its_own_or_tied(llama: Path) -> None:
    """config.json says which; where it does not, what is there decides."""
    assert "output.weight" in [t.name for t in make_plan(llama).tensors]
    rewrite(llama, {}, drop="lm_head")
    refused(llama, ConvertError, r"lacks 1 tensors: output\.weight")
    assert convert(configure(llama, tie_word_embeddings=...), llama / "out.gguf").n_tensors == 11
    rewrite(llama, {"lm_head.weight": np.zeros((512, 64), np.float32)})
    (remark,) = make_plan(configure(llama, tie_word_embeddings=True)).remarks
    assert "`lm_head.weight` is there, and used" in remark


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_act": "gelu"}, "`hidden_act` is 'gelu', and llama.cpp runs llama only with `silu`"),
        ({"partial_rotary_factor": 0.5}, "`partial_rotary_factor` is 0.5"),
    ],
)
def test_what_llamas_graph_cannot_do(llama: Path, changes: dict[str, Any], match: str) -> None:
    refused(configure(llama, **changes), ConvertError, match)


def test_rotary_buffers_are_left_out(llama: Path) -> None:
    rewrite(llama, {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)})
    assert convert(llama, llama / "out.gguf").n_tensors == 12


def test_a_missing_tensor(llama: Path) -> None:
    rewrite(llama, {}, drop="down_proj")
    refused(llama, ConvertError, r"lacks 1 tensors: blk\.0\.ffn_down\.weight")


def test_integer_weights(llama: Path) -> None:
    rewrite(llama, {"model.norm.weight": np.zeros(64, np.int64)}, drop="model.norm")
    refused(llama, ConvertError, r"`model\.norm\.weight` has type I64")


def test_pickled_weights(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    error = refused(llama, ConvertError, r"only pickled weights \(pytorch_model\.bin\)")
    assert error.hint is not None
    assert "safetensors" in error.hint
    (llama / "pytorch_model.bin").unlink()
    refused(llama, ConvertError, "has no weights")


def test_truncated_weights(llama: Path) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(llama, SafetensorsError, "ends inside tensor")


def test_tokenizer_files(llama: Path) -> None:
    (llama / "tokenizer.model").write_bytes(b"not a model")
    refused(llama, TokenizerError, r"tokenizer\.model is not a SentencePiece model")
    (llama / "tokenizer.model").unlink()
    refused(llama, TokenizerError, r"has no tokenizer\.json")
    write_json(llama / "tokenizer.json", {"model": {"type": "Unigram"}})
    refused(llama, TokenizerError, "holds a Unigram tokenizer")
    write_json(llama / "tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 700}, "merges": []}})
    refused(llama, TokenizerError, "token 700 .* the embedding has 512 rows")


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": False}


def byte_level(folder: Path, vocab: dict[str, int]) -> None:
    (folder / "tokenizer.model").unlink(missing_ok=True)
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    steps = {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]}
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": steps, "decoder": BYTES, "model": model}
    write_json(folder / "tokenizer.json", whole)


def test_an_unknown_pre_tokenizer(llama: Path) -> None:
    byte_level(llama, {"a": 0, "b": 1})
    error = refused(llama, UnknownPreTokenizerError, r"tokenizer\.json splits text in a way")
    assert error.hint is not None
    assert "`--pre NAME`" in error.hint
    convert(llama, llama / "out.gguf", pre="gpt-2")


def test_a_tokenizer_larger_than_the_embedding(llama: Path) -> None:
    byte_level(llama, {"a": 0, "b": 512})
    refused(llama, TokenizerError, "token 512 .* the embedding has 512 rows")


def test_types(llama: Path) -> None:
    with pytest.raises(UnknownTypeError, match="convert makes no 'q4_0'"):
        convert(llama, llama / "out.gguf", outtype="q4_0")
    assert resolve_type(llama, "auto") == "bf16"
    assert resolve_type(llama, "F16") == "f16"


def test_no_space(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(llama)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    refused(llama, DiskFullError, "the GGUF needs .* has 10 B free")


def test_the_disk_fills_up(llama: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    (llama / "link").symlink_to(full)
    with pytest.raises(DiskFullError, match="no space left on the disk"):
        convert(llama, llama / "link")


def test_interrupted(llama: Path) -> None:
    class Interrupts:
        def task(self, *_: object, **__: object) -> object:
            raise KeyboardInterrupt

        say = warn = staticmethod(lambda _: None)

    with pytest.raises(KeyboardInterrupt):
        convert(llama, llama / "out.gguf", progress=Interrupts())  # type: ignore[arg-type]
    assert not (llama / "out.gguf").exists()


def test_a_bad_model_card_is_a_warning(llama: Path) -> None:
    (llama / "README.md").write_text("---\nlicense: [mit\n---\n")
    warnings: list[str] = []

    class Notes:
        task = staticmethod(SILENT.task)
        say = staticmethod(lambda _: None)
        warn = staticmethod(warnings.append)

    convert(llama, llama / "out.gguf", progress=Notes())
    assert len(warnings) == 1
    assert "README.md" in warnings[0]


def test_names(tmp_path: Path) -> None:
    folder = make_qwen2(tmp_path / "0a1b2c3d", n_layers=1, hidden=64)
    target = tmp_path / "out.gguf"
    assert convert(folder, target).name == "0a1b2c3d"
    assert convert(folder, target, model_id="Qwen/Qwen2.5-0.5B-Instruct").name == "Qwen2.5 0.5B Instruct"
    assert convert(folder, target, model_id="a/b", name="My model").name == "My model"


def test_a_model_of_the_hub_names_its_source(llama: Path) -> None:
    from gguf import GGUFReader

    convert(llama, llama / "out.gguf", model_id="org/name", commit="0a1b2c")
    fields = GGUFReader(llama / "out.gguf").fields
    assert fields["general.source.url"].contents() == "https://huggingface.co/org/name/tree/0a1b2c"
    assert fields["general.source.repo_url"].contents() == "https://huggingface.co/org/name"
