"""Finds a checkpoint's chat templates, with the precedence of llama.cpp's converter.

`chat_template` in tokenizer_config.json comes first, then `chat_template.jinja` (with the files in
`additional_chat_templates/`), then `chat_template.json`: gguf-py/gguf/vocab.py (`SpecialVocab`) at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/vocab.py.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmkit.errors import TokenizerError
from slmkit.formats.tokenizer_json import read_json

DEFAULT = "default"
_SAFE = frozenset(string.ascii_letters + string.digits)


def chat_templates(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name, the usual one under `DEFAULT`; empty when the checkpoint has none.

    Names are cut down to letters, digits and `_`. Raises `TokenizerError` for a file that is no text.
    """
    found = tokenizer_config["chat_template"] if "chat_template" in tokenizer_config else _from_files(folder)
    if isinstance(found, str):
        return {DEFAULT: found}
    if not isinstance(found, list):
        return {}
    out: dict[str, str] = {}
    for choice in found:
        match choice:
            case {"name": str(name), "template": str(template)} if name:
                out["".join(c if c in _SAFE else "_" for c in name)] = template
    return out


def _from_files(folder: Path) -> Any:
    jinja = folder / "chat_template.jinja"
    if not jinja.is_file():
        return read_json(folder / "chat_template.json").get("chat_template")
    others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    if not others:
        return _text(jinja)
    return [{"name": path.stem, "template": _text(path)} for path in others] + [
        {"name": DEFAULT, "template": _text(jinja)}
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot read {path}: {error}") from error
