"""The tokenizer, and where its parts contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmkit.formats.gguf.model import GgufModel

_PREFIX, _ID = "tokenizer.ggml.", "_token_id"
_CONTROL = 3  # enum llama_token_type of llama.h

_END_OF_TURN = """
<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> <EOT>
<|end_of_text|> <end_of_utterance> <eos> <turn|> <｜end▁of▁sentence｜>
"""
END_OF_TURN = frozenset(_END_OF_TURN.split())
"""Tokens at which llama.cpp stops by their text alone (`special_eog_ids` in src/llama-vocab.cpp at 0c1e57098)."""


@dataclass(frozen=True)
class Vocabulary:
    """`special` are the tokens that the metadata names: id and text, `None` for one outside the vocabulary.

    `stops` are the texts at which generation ends. `add_bos` is what llama.cpp does.
    """

    model: str
    pre: str | None
    n_tokens: int
    n_merges: int | None
    n_control: int
    special: Mapping[str, tuple[int, str | None]]
    add_bos: bool
    stops: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def bos(self) -> str:
        """The text of BOS, or nothing."""
        return self.special.get("bos", (0, None))[1] or ""

    @property
    def eos(self) -> str:
        """The text of EOS, or nothing."""
        return self.special.get("eos", (0, None))[1] or ""


def read_vocabulary(model: GgufModel) -> Vocabulary | None:
    """By the metadata; `None` when it has no tokens."""
    values = {k.removeprefix(_PREFIX): v for k, v in model.metadata.items() if k.startswith(_PREFIX)}
    tokens = values.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    ids = {k.removesuffix(_ID): v for k, v in values.items() if k.endswith(_ID) and isinstance(v, int)}
    special = {name: (i, tokens[i] if 0 <= i < len(tokens) else None) for name, i in ids.items()}
    types = values.get("token_type")
    named = [special[name][1] for name in ("eos", "eot", "eom") if name in special]
    known = END_OF_TURN.intersection(tokens)
    merges = values.get("merges")
    return Vocabulary(
        model=str(values.get("model")),
        pre=str(values["pre"]) if "pre" in values else None,
        n_tokens=len(tokens),
        n_merges=len(merges) if isinstance(merges, list) else None,
        n_control=types.count(_CONTROL) if isinstance(types, list) else 0,
        special=special,
        add_bos=bool(values.get("add_bos_token", values.get("model") == "llama")),
        stops=tuple(dict.fromkeys([*(text for text in named if text), *sorted(known)])),
        problems=tuple(_problems(model, values, tokens, special)),
    )


def _problems(
    model: GgufModel, values: Mapping[str, Any], tokens: Sequence[str], special: Mapping[str, tuple[int, str | None]]
) -> list[str]:
    n = len(tokens)
    out = [f"{name} is token {i}, and there are {n:,}" for name, (i, text) in special.items() if text is None]
    out += [
        f"{len(values[key]):,} values in {key} for {n:,} tokens"
        for key in ("token_type", "scores")
        if isinstance(values.get(key), list) and len(values[key]) != n
    ]
    size = model.first.hyper("vocab_size")
    if isinstance(size, int) and size != n:
        out.append(f"vocab_size is {size:,}, and there are {n:,} tokens")
    rows = next((t.info.shape[1] for t in model.tensors if t.name == "token_embd.weight" and len(t.info.shape) > 1), n)
    if rows != n:
        out.append(f"the embedding has {rows:,} rows for {n:,} tokens")
    if "eos" not in special:
        out.append("it names no EOS token")
    if values.get("model") == "gpt2" and "pre" not in values:
        out.append("no pre-tokenizer is named: llama.cpp splits text in a default way, mostly the wrong one")
    if doubled := n - len(set(tokens)):
        out.append(f"tokens that stand in it twice: {doubled:,}")
    return out
