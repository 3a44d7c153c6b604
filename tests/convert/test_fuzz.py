"""Whatever is in a checkpoint's files: a plan, or an error of ours."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.core.progress import SILENT
from slmkit.errors import SlmkitError
from slmkit.ops.convert.plan import make_plan
from tests.convert.fuzz import VALUES, as_json, damaged_bytes, read, several
from tests.factories import PIECES, make_llama, write_json

MANY = settings(
    max_examples=int(os.environ.get("FUZZ", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    deadline=None,
)
SIDE_FILES = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "added_tokens.json",
    "chat_template.json",
    "model.safetensors.index.json",
)
CARD = ("license", "tags", "base_model", "language", "datasets", "model_name", "version", "quantized_by", "author")
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has every file, with a SentencePiece model."""
    folder = make_llama(tmp_path_factory.mktemp("fuzz") / "spm", n_layers=1, hidden=32, vocab_size=520)
    config = read(folder / "config.json")
    rope = {**ROPE, "original_max_position_embeddings": 1024}
    write_json(folder / "config.json", {**config, "rope_scaling": rope, "_name_or_path": "org/name"})
    write_json(folder / "added_tokens.json", {"<x>": 512})
    sampling = {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1, "mirostat": 2}
    write_json(folder / "generation_config.json", sampling)
    named = [{"name": "default", "template": "{{ a }}"}, {"name": "tool", "template": "{{ b }}"}]
    write_json(folder / "chat_template.json", {"chat_template": named})
    tokens = read(folder / "tokenizer_config.json")
    del tokens["chat_template"]
    tokens["additional_special_tokens"] = ["<x>"]
    write_json(folder / "tokenizer_config.json", tokens)
    tensors = _names(folder / "model.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": dict.fromkeys(tensors, "model.safetensors")})
    return folder


@pytest.fixture(scope="module")
def bpe(spm: Path) -> Path:
    """The same with a byte-level tokenizer.json."""
    folder = shutil.copytree(spm, spm.parent / "bpe")
    (folder / "tokenizer.model").unlink()
    alphabet = [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]
    vocab = {chr(letter): i for i, letter in enumerate(alphabet)}
    vocab |= {"th": 256, "the": 257}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<s>": {"id": "<s>", "ids": [258], "tokens": ["<s>"]}}
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    added = [
        {"id": 258, "content": "<s>", "special": True, "normalized": False, **flags},
        {"id": 259, "content": "</s>", "special": True, "normalized": False, **flags},
        {"id": 260, "content": "<|x|>", "special": False, "normalized": True, **flags},
    ]
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, split]},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special},
        "decoder": split,
        "model": {"type": "BPE", "vocab": vocab, "merges": ["t h", ["th", "e"]][:1]},
    }
    write_json(folder / "tokenizer.json", document)
    return folder


@pytest.fixture(scope="module")
def spm_json(spm: Path) -> Path:
    """The same with SentencePiece's pieces as tokenizer.json."""
    folder = shutil.copytree(spm, spm.parent / "spm_json")
    (folder / "tokenizer.model").unlink()
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "byte_fallback": True,
        "vocab": {piece.text: i for i, piece in enumerate(PIECES)},
        "merges": ["t h", "th e", "o f"],
    }
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    added = [{"id": 1, "content": "<s>", "special": True}, {"id": 2, "content": "</s>", "special": True}]
    document = {"version": "1.0", "normalizer": normalizer, "decoder": decoder, "added_tokens": added, "model": model}
    write_json(folder / "tokenizer.json", document)
    return folder


def _names(path: Path) -> list[str]:
    from slmkit.formats.safetensors import read_file

    return list(read_file(path))


def check(folder: Path, name: str, content: bytes, pre: str | None = None) -> None:
    """Plan the checkpoint with this file in it instead of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as copy:
        for path in folder.iterdir():
            os.link(path, Path(copy) / path.name)
        (Path(copy) / name).unlink(missing_ok=True)
        (Path(copy) / name).write_bytes(content)
        try:
            make_plan(Path(copy), pre=pre, progress=SILENT).size_bytes()
        except SlmkitError as error:
            assert error.message


def test_undamaged(spm: Path, bpe: Path, spm_json: Path) -> None:
    """Otherwise the rest would prove little."""
    for folder in (spm, spm_json):
        assert make_plan(folder).size_bytes() > 0
    assert make_plan(bpe, pre="gpt-2").size_bytes() > 0


@pytest.mark.parametrize("name", SIDE_FILES)
@MANY
@given(data=st.data())
def test_small_files(spm: Path, name: str, data: st.DataObject) -> None:
    check(spm, name, as_json(data.draw(several(read(spm / name)))))


@MANY
@given(data=st.data(), pre=st.sampled_from([None, "gpt-2"]))
def test_tokenizer_json(bpe: Path, data: st.DataObject, pre: str | None) -> None:
    check(bpe, "tokenizer.json", as_json(data.draw(several(read(bpe / "tokenizer.json")))), pre)


@MANY
@given(data=st.data(), pre=st.sampled_from([None, "default"]))
def test_tokenizer_json_of_pieces(spm_json: Path, data: st.DataObject, pre: str | None) -> None:
    check(spm_json, "tokenizer.json", as_json(data.draw(several(read(spm_json / "tokenizer.json")))), pre)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@MANY
@given(data=st.data())
def test_beside_a_tokenizer_json(bpe: Path, name: str, data: st.DataObject) -> None:
    check(bpe, name, as_json(data.draw(several(read(bpe / name)))), "gpt-2")


@pytest.mark.parametrize("name", [*SIDE_FILES, "tokenizer.model", "README.md", "chat_template.jinja"])
@MANY
@given(data=st.data())
def test_bytes(spm: Path, name: str, data: st.DataObject) -> None:
    content = (spm / name).read_bytes() if (spm / name).exists() else b"{{ x }}"
    check(spm, name, data.draw(damaged_bytes(content) | st.binary(max_size=40)))


@MANY
@given(data=st.data())
def test_headers(spm: Path, data: st.DataObject) -> None:
    content = (spm / "model.safetensors").read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:size])
    text = as_json(data.draw(several(table)))
    check(spm, "model.safetensors", len(text).to_bytes(8, "little") + text + content[size:])
    check(spm, "model.safetensors", data.draw(damaged_bytes(content[:size])) + content[size:])


@MANY
@given(front=st.dictionaries(st.sampled_from(CARD), VALUES, max_size=3))
def test_cards(spm: Path, front: dict[str, Any]) -> None:
    check(spm, "README.md", b"---\n" + as_json(front) + b"\n---\n# x\n")
