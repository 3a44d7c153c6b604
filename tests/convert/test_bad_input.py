"""Checkpoints that lie, are damaged or mean harm: an error with the tensor and the file, and no file is left."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.progress import SILENT
from slmkit.errors import ConvertError, SafetensorsError, SlmkitError, TokenizerError, UnclaimedTensorsError
from slmkit.formats.safetensors import INDEX_NAME, read_checkpoint
from slmkit.formats.sentencepiece import Piece, SpecialIds, write_pieces
from slmkit.ops.convert import convert
from slmkit.ops.convert.finite import is_finite
from slmkit.ops.convert.plan import make_plan
from tests.convert.test_errors import configure, refused, rewrite
from tests.factories import PIECES, make_llama, split_shards

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "llama", n_layers=1, hidden=64)


# ------------------------------------------------------------------ files


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the JSON header of the weights, the data staying as it is."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    table = json.loads(content[8 : 8 + length])
    text = change(table)
    data = text if isinstance(text, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + content[8 + length :])
    return folder


def test_a_truncated_shard(llama: Path, tmp_path: Path) -> None:
    folder = split_shards(llama, tmp_path / "shards", 3)
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    refused(folder, SafetensorsError, r"model-00002-of-00003\.safetensors ends inside tensor `model\.layers\.")
    path.unlink()
    refused(folder, SafetensorsError, r"lacks 1 of 3 shards: model-00002-of-00003\.safetensors")


def test_overlapping_tensors(llama: Path) -> None:
    def overlap(table: dict[str, Any]) -> None:
        table[Q]["data_offsets"] = [n - 2 for n in table[Q]["data_offsets"]]

    refused(header(llama, overlap), SafetensorsError, r"model\.safetensors is damaged: tensor `.*` overlaps another")


def test_a_name_twice_in_one_header(llama: Path) -> None:
    def twice(table: dict[str, Any]) -> bytes:
        text = json.dumps(table)
        return f'{text[:-1]}, "{Q}": {json.dumps(table[Q])}}}'.encode()

    refused(header(llama, twice), SafetensorsError, rf"model\.safetensors is damaged: .*'{Q}' occurs twice")


def test_a_name_in_two_shards(llama: Path, tmp_path: Path) -> None:
    folder = split_shards(llama, tmp_path / "shards", 2)
    (folder / "model-1.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    (folder / INDEX_NAME).unlink()
    refused(folder, SafetensorsError, r"tensor `.*` is in both model-00001-of-00002\.safetensors and model-1\.")


@pytest.mark.parametrize("length", [100 << 30, (1 << 64) - 1, 99_999_999])
def test_a_header_of_100_gb(llama: Path, length: int) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"a": 1}')
    refused(llama, SafetensorsError, r"model\.safetensors (is not a safetensors file|ends inside its header)")


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 1_000_000, "1" * 1_000_000, '{"a": ' + "9" * 5000 + "}"])
def test_hostile_json(llama: Path, text: str) -> None:
    refused(header(llama, lambda _: text.encode()), SafetensorsError, r"model\.safetensors is damaged")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "C:\\x", "lm_head.weight/../x"])
def test_a_path_as_a_name(llama: Path, name: str) -> None:
    def rename(table: dict[str, Any]) -> None:
        table[name] = table.pop(Q)

    error = refused(header(llama, rename), UnclaimedTensorsError, "1 tensors")
    assert name in error.message
    assert sorted(path.name for path in llama.parent.iterdir() if path.is_dir()) == ["llama"]


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\n", "a\x00", "a\u202eb", "a\ud800"])
def test_a_name_that_is_no_text(llama: Path, name: str) -> None:
    def rename(table: dict[str, Any]) -> None:
        table[name] = table.pop(Q)

    error = refused(header(llama, rename), SafetensorsError, r"the name of tensor 'a.* is no text")
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "shape",
    [[1 << 64, 0], [1 << 32, 1 << 32], [-64, -64], [64.0, 64], ["64", "64"], [64, True], 64, None, [1 << 62] * 40],
)
def test_absurd_shapes(llama: Path, shape: Any) -> None:
    def change(table: dict[str, Any]) -> None:
        table[Q]["shape"] = shape

    refused(header(llama, change), SafetensorsError, rf"model\.safetensors is damaged: .*`{Q}`")


def test_a_file_that_vanishes(llama: Path) -> None:
    tensor = read_checkpoint(llama)[Q]
    (llama / "model.safetensors").unlink()
    with pytest.raises(SafetensorsError, match=rf"cannot read tensor `{Q}` of .*model\.safetensors"):
        tensor.read(0, 1)


# ------------------------------------------------------------------ vocabulary and config


def test_more_pieces_than_rows(llama: Path) -> None:
    write_pieces(llama / "tokenizer.model", [*PIECES, Piece("more", -1.0)], SpecialIds())
    refused(llama, TokenizerError, r"tokenizer\.model has token 512 \('more'\), but the embedding has 512 rows")


def test_fewer_pieces_than_rows_are_padding(llama: Path) -> None:
    write_pieces(llama / "tokenizer.model", PIECES[:500], SpecialIds())
    tokens = make_plan(llama).metadata["tokenizer.ggml.tokens"].value
    assert (len(tokens), tokens[499:501]) == (512, [PIECES[499].text, "[PAD500]"])


def test_too_many_layers_for_llama_cpp(llama: Path) -> None:
    refused(configure(llama, num_hidden_layers=(1 << 32) - 1), ConvertError, "4294967295 layers are more than")


KEYS = (
    "architectures",
    "attention_bias",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "is_causal",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "rope_local_base_freq",
    "sliding_window",
    "text_config",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
    "_name_or_path",
)
BAD = ["64", "x", "", -1, 0, 1.5, 1 << 31, 1 << 70, 10**400, 1e308, float("nan"), True, False, [], [64], {}, {"a": 1}]


@pytest.mark.parametrize("key", KEYS)
def test_config_of_wrong_types(llama: Path, key: str) -> None:
    """A plan or an error, whatever stands there; which of the two is a matter of the key."""
    for value in BAD:
        configure(llama, **{key: value})
        try:
            make_plan(llama).size_bytes()
        except SlmkitError as error:
            assert error.message


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_size": "64"}, "`hidden_size` must be a positive whole number, not '64'"),
        ({"hidden_size": -64}, "`hidden_size` must be a positive whole number, not -64"),
        ({"intermediate_size": [128, 128]}, "the feed forward length must be a positive whole number"),
        ({"vocab_size": 512.0}, r"`vocab_size` must be a positive whole number, not 512\.0"),
        ({"rms_norm_eps": "1e-5"}, "`rms_norm_eps` must be a number, not '1e-5'"),
        ({"rms_norm_eps": float("nan")}, "`rms_norm_eps` must be a number, not nan"),
        ({"rope_theta": 10**400}, "`rope_theta` must be a number"),
        ({"rope_theta": -1.0}, r"`rope_theta` of the rope must be a positive number, not -1\.0"),
        ({"rope_scaling": [1]}, r"`rope_scaling` must be an object, not \[1\]"),
        ({"rope_parameters": {"full_attention": 3}}, "`rope_parameters` must have objects, not 3"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "4"}}, "`factor` of the rope must be a positive number"),
        ({"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 4.0}}, "makes no sense"),
        ({"head_dim": 1 << 31, "rope_scaling": {"rope_type": "llama3"}}, "heads of 2147483648 make no sense"),
        ({"architectures": "LlamaForCausalLM"}, "lacks `architectures`"),
        ({"architectures": [["LlamaForCausalLM"]]}, "lacks `architectures`"),
    ],
)
def test_what_is_said_of_a_config(llama: Path, changes: dict[str, Any], match: str) -> None:
    refused(configure(llama, **changes), ConvertError, match)


# ------------------------------------------------------------------ numbers that are none


class Notes:
    """Keeps what the user is warned of."""

    task = staticmethod(SILENT.task)
    say = staticmethod(lambda _: None)

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def warnings(folder: Path, outtype: str) -> list[str]:
    notes = Notes()
    convert(folder, folder / "out.gguf", outtype=outtype, progress=notes)
    return notes.warnings


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
def test_nan_and_infinite_weights(llama: Path, outtype: str) -> None:
    assert warnings(llama, outtype) == []
    values = np.full((64, 64), -0.5, np.float32)
    values[1, 2], values[3, 4:6] = np.nan, [np.inf, -np.inf]
    norm = np.ones(64, np.float32)
    norm[0] = -np.inf
    rewrite(llama, {Q: values}, drop=Q)
    rewrite(llama, {"model.norm.weight": norm}, drop="model.norm")
    file = llama / "model.safetensors"
    assert warnings(llama, outtype) == [
        f"{file}: tensor `{Q}`: 1 NaN",
        f"{file}: tensor `{Q}`: 2 infinite",
        f"{file}: tensor `model.norm.weight`: 1 infinite",
    ]


def test_weights_too_large_for_the_type(llama: Path) -> None:
    values = np.full((64, 64), -65504, np.float32)
    rewrite(llama, {Q: values}, drop=Q)
    assert warnings(llama, "f16") == []
    values[1, :3] = [-65520, 1e30, 70000]
    rewrite(llama, {Q: values}, drop=Q)
    what = f"{llama / 'model.safetensors'}: tensor `{Q}`"
    assert warnings(llama, "f16") == [f"{what}: 3 too large for f16 and infinite in the GGUF: --type bf16 holds them"]
    assert warnings(llama, "bf16") == warnings(llama, "f32") == []
    assert warnings(llama, "q8_0") == [f"{what}: 1 too large for q8_0 and infinite in the GGUF: --type bf16 holds them"]


@pytest.mark.parametrize("target", ["F32", "F16", "BF16", "Q8_0", "TQ1_0", "TQ2_0"])
@given(position=st.integers(0, 511), bad=st.sampled_from([None, np.nan, -np.nan, np.inf, -np.inf]), sign=st.booleans())
def test_one_number_that_is_none(target: str, position: int, bad: float | None, sign: bool) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = np.full((2, 256), -3e4 if sign else 3e4, np.float32)
    if bad is not None:
        values.reshape(-1)[position] = bad
    with np.errstate(all="ignore"):
        data = quantize(values, GGMLQuantizationType[target])
    assert is_finite(data, target) is (bad is None)


# ------------------------------------------------------------------ links


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model", "README.md"])
def test_a_link_out_of_the_folder(llama: Path, tmp_path: Path, name: str) -> None:
    (llama / name).rename(tmp_path / "elsewhere")
    (llama / name).symlink_to(tmp_path / "elsewhere")
    error = refused(llama, ConvertError, "is a link out of the checkpoint")
    assert str(llama / name) in error.message


def test_templates_elsewhere(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.jinja").write_text("secret")
    (llama / "additional_chat_templates").symlink_to(tmp_path / "templates")
    refused(llama, ConvertError, "additional_chat_templates is a link out of the checkpoint")
    (llama / "additional_chat_templates").unlink()
    (llama / "additional_chat_templates").mkdir()
    (llama / "additional_chat_templates" / "a.jinja").symlink_to(tmp_path / "templates" / "a.jinja")
    refused(llama, ConvertError, r"a\.jinja is a link out of the checkpoint")


def test_links_of_the_cache_and_inside_are_at_home(llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "0a1b", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(llama.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    wanted = convert(snapshot, tmp_path / "a.gguf", model_id="org/llama").sha256
    (tmp_path / "way").symlink_to(snapshot)
    assert convert(tmp_path / "way", tmp_path / "b.gguf", model_id="org/llama").sha256 == wanted
    (snapshot / "weights").mkdir()
    (blobs / "x").symlink_to(tmp_path / "a.gguf")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/x")
    refused(snapshot, ConvertError, r"tokenizer\.json is a link out of the checkpoint")


def test_what_is_no_file(llama: Path) -> None:
    os.mkfifo(llama / "tokenizer.json")
    refused(llama, ConvertError, r"tokenizer\.json is not a file")
    (llama / "tokenizer.json").unlink()
    (llama / "tokenizer.json").mkdir()
    refused(llama, ConvertError, r"tokenizer\.json is not a file")
    (llama / "tokenizer.json").rmdir()
    (llama / "config.json").unlink()
    (llama / "config.json").symlink_to("config.json")
    refused(llama, ConvertError, r"config\.json")
