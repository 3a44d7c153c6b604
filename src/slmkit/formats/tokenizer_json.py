"""Reads `tokenizer.json`, the file of the Hugging Face tokenizers library, and the small JSON files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found before the text is split. One that is not `normalized` is matched as it stands.

    `lstrip` and `rstrip` take the white space beside it away, `single_word` wants no letters there.
    """

    id: int
    content: str
    special: bool = False
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False

    @classmethod
    def of(cls, number: int, content: str, flags: Mapping[str, Any]) -> AddedToken:
        """With the flags as JSON files have them; one that is not there is off."""
        return cls(number, content, **{flag: bool(flags.get(flag)) for flag in _FLAGS})


@dataclass(frozen=True)
class TokenizerJson:
    """The parts that GGUF wants. `vocab` holds the model's own tokens, `added` those on top (some are in both)."""

    path: Path
    raw: dict[str, Any]
    vocab: dict[str, int]
    merges: tuple[str, ...]
    added: tuple[AddedToken, ...]

    @property
    def model(self) -> dict[str, Any]:
        """The section of that name: type, merges and switches."""
        return dict(self.raw["model"])

    @property
    def is_spm_bpe(self) -> bool:
        """A SentencePiece BPE model in other clothes (Llama 2, Mistral): falls back to bytes, does not split words."""
        decoder = self.raw.get("decoder") or {}
        return bool(self.model.get("byte_fallback")) and decoder.get("type") == "Sequence"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, `{}` when there is no such file; raises `TokenizerError` when it is something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not JSON: {error}", hint="download the file again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object", hint="download the file again")
    return value


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Read the file; raises `TokenizerError` when it is missing, damaged, or no BPE model."""
    raw = read_json(path)
    if not raw:
        raise TokenizerError(f"{path.parent} has no {path.name}", hint="the checkpoint needs its tokenizer files")
    match raw.get("model"):
        case {"type": "BPE", "vocab": dict(vocab), "merges": list(merges)}:
            pass
        case {"type": str(kind)} if kind != "BPE":
            raise TokenizerError(f"{path} holds a {kind} tokenizer; only BPE is supported")
        case _:
            raise TokenizerError(f"{path} has no vocabulary")
    if not all(type(i) is int and i >= 0 for i in vocab.values()):
        raise TokenizerError(f"{path} has a token without an id")
    return TokenizerJson(path, raw, vocab, _merges(path, merges), _added(path, raw.get("added_tokens") or []))


def load(source: TokenizerJson) -> Tokenizer:
    """The tokenizer itself, without truncation and padding; raises `TokenizerError` when the library refuses it."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(source.path))
    except Exception as error:  # the library raises bare Exception and nothing else
        raise TokenizerError(f"{source.path} is refused by the tokenizers library: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _merges(path: Path, merges: list[Any]) -> tuple[str, ...]:
    """Pairs as `left right`; a space inside a part becomes U+0120, as llama.cpp expects it."""
    if all(type(m) is str for m in merges):
        return tuple(merges)
    out = []
    for merge in merges:
        match merge:
            case [str(left), str(right)]:
                out.append(f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}")
            case _:
                raise TokenizerError(f"{path} has a merge that is no pair: {merge!r}")
    return tuple(out)


def _added(path: Path, tokens: list[Any]) -> tuple[AddedToken, ...]:
    out = []
    for token in tokens:
        match token:
            case {"id": int(number), "content": str(content)}:
                out.append(AddedToken.of(number, content, token))
            case _:
                raise TokenizerError(f"{path} has an added token that makes no sense: {token!r}")
    return tuple(out)
