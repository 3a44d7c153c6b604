"""Special tokens: which ids they have, and which of them the tokenizer puts around a text by itself.

The rules are those of gguf-py/gguf/vocab.py (`SpecialVocab`) at llama.cpp 0c1e57098,
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/vocab.py: tokenizer.json's post-processor says what
is added, tokenizer_config.json names the tokens, config.json has the last word on ids that are still unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slmkit.formats.gguf.writer import Value, boolean, u32

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
}
ADD_KEYS = {kind: f"tokenizer.ggml.add_{kind}_token" for kind in ("bos", "eos", "sep")}


@dataclass
class SpecialTokens:
    """What is known so far. `names` starts as tokenizer_config.json and is filled up from the post-processor."""

    names: dict[str, Any]
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    ids: dict[str, int] = field(default_factory=dict)
    adds: dict[str, bool] = field(default_factory=dict)

    def metadata(self) -> dict[str, Value]:
        """Keys in the order llama.cpp's converter writes them."""
        out = {ID_KEYS[kind]: u32(token) for kind, token in self.ids.items() if kind in ID_KEYS}
        return out | {ADD_KEYS[kind]: boolean(value) for kind, value in self.adds.items() if kind in ADD_KEYS}


def special_tokens(
    tokenizer_json: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    config: Mapping[str, Any],
    n_vocab: int | None = None,
) -> SpecialTokens:
    """Put together what the three files say; `{}` stands for a file that is not there.

    Ids of `n_vocab` and above are left out.
    """
    found = SpecialTokens(dict(tokenizer_config))
    if tokenizer_json:
        _post_processor(found, _object(tokenizer_json.get("post_processor")))
    added = _objects(tokenizer_json.get("added_tokens"))
    ids = {_content(token): token.get("id") for token in reversed(added) if _content(token) is not None}
    for kind in found.kinds if found.names else ():
        add = found.names.get(f"add_{kind}_token")
        if isinstance(add, bool):
            found.adds.setdefault(kind, add)
        _set(found, kind, ids.get(_content(found.names.get(f"{kind}_token"))), n_vocab)
    for kind in found.kinds:
        _set(found, kind, config.get(f"{kind}_token_id"), n_vocab)
    return found


def _set(found: SpecialTokens, kind: str, token: Any, n_vocab: int | None) -> None:
    if type(token) is int and token >= 0 and (n_vocab is None or token < n_vocab):
        found.ids.setdefault(kind, token)


def _content(entry: Any) -> str | None:
    """The text of a token in tokenizer_config.json: a string, or an object with `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _post_processor(found: SpecialTokens, post: Mapping[str, Any]) -> None:
    names = found.names
    if names:
        names["bos_token"] = names.get("bos_token") or names.get("cls_token")
        names["eos_token"] = names.get("eos_token") or names.get("sep_token")
    for step in _objects(post.get("processors", [post])):
        match step.get("type"):
            case "ByteLevel":
                found.adds.setdefault("bos", False)
                found.adds.setdefault("eos", False)
            case "RobertaProcessing":
                found.adds |= {"bos": True, "eos": True, "sep": True}
            case "TemplateProcessing":
                _template(found, _objects(step.get("single")), _objects(step.get("pair")))


def _object(value: Any) -> dict[str, Any]:
    """Of a hand-made file: what is no object counts as an empty one."""
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [_object(item) for item in value] if isinstance(value, list) else []


def _special(step: Mapping[str, Any]) -> str | None:
    name = _object(step.get("SpecialToken")).get("id")
    return name if isinstance(name, str) else None


def _template(found: SpecialTokens, single: list[Any], pair: list[Any]) -> None:
    """Read `[first] A [last]` and `A [separators] B` off the template."""
    names = found.names
    first = last = None
    if len(single) > 1:
        first, last = _special(single[0]), _special(single[-1])
        bos, cls = names.get("bos_token"), names.get("cls_token")
        if first:
            if names and first not in (bos, cls):
                bos = names["bos_token"] = bos or first
                cls = names["cls_token"] = cls or first
            found.adds["bos"] = not names or first in (bos, cls)
        if last:
            if names and last != names.get("eos_token"):
                # What ends a turn in the config is not what ends a text: keep both.
                for kind in ("eot", "eom"):
                    if kind not in found.kinds:
                        found.kinds.append(kind)
                        names[f"{kind}_token"] = names.get("eos_token")
                        break
                names["eos_token"] = last
            found.adds["eos"] = True
    if not pair:
        return
    begin = 1 if first and _special(pair[0]) == first else 0
    end = -1 if last and _special(pair[-1]) == last else None
    inner = pair[begin:end][1:-1]
    parts = [_object(part.get("Sequence")).get("id") for part in (pair[begin:end] or [{}])]
    if parts[0] != "A" or parts[-1] != "B" or not inner:
        return
    separators = (names.get("sep_token"), names.get("eos_token"))
    add = bool(_special(inner[0]) and _special(inner[0]) in separators and not last)
    add = add or (len(inner) == 2 and bool(_special(inner[1])) and _special(inner[1]) in separators)
    found.adds["sep"] = add
    if add and not names.get("sep_token") and names:
        names["sep_token"] = names.get("eos_token")
