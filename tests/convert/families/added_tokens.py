"""No family: what the files of a tokenizer say about tokens and templates, as llama.cpp's converter reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.factories import make_checkpoint, write_json

JSON = dict[str, Any]
CONFIG = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "tie_word_embeddings": True}
OFF = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)


def change(folder: Path, name: str, how: Callable[[JSON], None]) -> None:
    """Edit one JSON file of the checkpoint."""
    value = json.loads((folder / name).read_text("utf-8"))
    how(value)
    write_json(folder / name, value)


def _body(folder: Path) -> Path:
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", {**CONFIG, "vocab_size": 49170}, tokenizer=False)


def _decoder(folder: Path) -> Path:
    """Tokens that only tokenizer_config.json names: one with another id than it gets, two without any."""

    def more(config: JSON) -> None:
        config["added_tokens_decoder"] |= {
            "49152": {"content": "<tool>", "special": False, **OFF},
            "49160": {"content": "<|call|>", "special": False, **OFF},
            "49153": {"content": "<turn>", "special": True, **OFF},
            "0": {"content": "<|endoftext|>", "special": False, **OFF},
        }
        config["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>", "<new>"]
        config["pad_token"] = {"__type": "AddedToken", "content": "<mypad>", **OFF}
        config["chat_template"] = [{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]

    _body(folder)
    change(folder, "tokenizer_config.json", more)
    return folder


def _legacy(folder: Path) -> Path:
    """added_tokens.json, as old versions of transformers left it, and a template in a file of its own."""

    def less(config: JSON) -> None:
        del config["added_tokens_decoder"], config["chat_template"]

    _body(folder)
    change(folder, "tokenizer_config.json", less)
    write_json(folder / "added_tokens.json", {"<tool>": 49153, "<|im_start|>": 1, "<x y>": 49152, "\u0120the": 260})
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    return folder


def _flags(folder: Path) -> Path:
    """Tokens with flags, chat_template.json, sampling."""

    def more(tokenizer: JSON) -> None:
        tokenizer["added_tokens"] += [
            {"id": 49152, "content": "<left>", "special": True, **OFF, "lstrip": True},
            {"id": 49153, "content": "<right>", "special": False, **OFF, "rstrip": True},
            {"id": 49154, "content": "na\u00efve word", "special": False, **OFF, "normalized": True},
            {"id": 49155, "content": "<\uff5ctool\u2581end\uff5c>", "special": False, **OFF},
        ]

    def template(config: JSON) -> None:
        write_json(folder / "chat_template.json", {"chat_template": config.pop("chat_template")})

    _body(folder)
    change(folder, "tokenizer.json", more)
    change(folder, "tokenizer_config.json", template)
    sampling = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05}
    write_json(folder / "generation_config.json", {"eos_token_id": [2, 0], "pad_token_id": 2, **sampling})
    return folder


CASES = {
    "added-decoder": Case(_decoder, tokenizer="smollm2"),
    "added-legacy": Case(_legacy, tokenizer="smollm2"),
    "added-flags": Case(_flags, tokenizer="smollm2"),
}
