"""The engine's names for ways of splitting: all that we offer, and no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmkit.errors import UsageError
from slmkit.formats import pretokenizers
from slmkit.formats.gguf.writer import boolean, i32s, string, strings, u32, write_gguf
from slmkit.formats.pretokenizer_names import NAMES, check_name

ASK = """
import ctypes, json, sys
import llama_cpp as ll

quiet = ll.llama_log_callback(lambda level, text, _: None)
ll.llama_log_set(quiet, ctypes.c_void_p(0))
ll.llama_backend_init()
params = ll.llama_model_default_params()
params.vocab_only = True
print(json.dumps([bool(ll.llama_model_load_from_file(path.encode(), params)) for path in json.load(sys.stdin)]))
"""


def write_vocab(path: Path, pre: str) -> Path:
    """A GGUF without tensors: a byte-level vocabulary and the name."""
    tokens = ["a", "b", "ab", "<eos>", *(chr(0x100 + i) for i in range(60))]
    metadata = {
        "general.architecture": string("gpt2"),
        "gpt2.vocab_size": u32(len(tokens)),
        "gpt2.context_length": u32(8),
        "gpt2.embedding_length": u32(8),
        "gpt2.feed_forward_length": u32(8),
        "gpt2.block_count": u32(1),
        "gpt2.attention.head_count": u32(1),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string(pre),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.token_type": i32s([1, 1, 1, 3, *[1] * 60]),
        "tokenizer.ggml.merges": strings(["a b"]),
        "tokenizer.ggml.bos_token_id": u32(3),
        "tokenizer.ggml.eos_token_id": u32(3),
        "tokenizer.ggml.add_bos_token": boolean(False),
    }
    write_gguf(path, metadata, [], [])
    return path


def test_the_engine_knows_every_name(tmp_path: Path) -> None:
    asked = [*NAMES, "smollm9", "Qwen2"]
    paths = [str(write_vocab(tmp_path / f"{i}.gguf", name)) for i, name in enumerate(asked)]
    done = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps(paths), capture_output=True, text=True, check=True, timeout=120
    )
    assert dict(zip(asked, json.loads(done.stdout), strict=True)) == {name: name in NAMES for name in asked}


def test_what_is_recognized_can_be_typed() -> None:
    for_bert = {"bert-bge-large", "jina-v2-en"}  # WordPiece: llama.cpp does not look at their names
    assert set(pretokenizers.known().values()) - for_bert <= set(NAMES)
    assert sorted(set(NAMES)) == list(NAMES)


def test_a_wrong_name_gets_the_nearest_ones() -> None:
    check_name("smollm")
    with pytest.raises(UsageError, match="no pre-tokenizer 'Smolm'") as caught:
        check_name("Smolm")
    assert caught.value.hint is not None
    assert "`smollm`" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        check_name("##")
    assert caught.value.hint is not None
    assert "llama-bpe, llama-v3" in caught.value.hint
