"""Reads `tokenizer.json`, the file of the Hugging Face tokenizers library, and the small JSON files beside it."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import SEEK_END
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
    """The parts that GGUF wants. `vocab` holds the model's own tokens, `added` those on top (some are in both).

    `raw` is the file without the merges.
    """

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
        match self.raw.get("decoder"):
            case {"type": "Sequence"}:
                return bool(self.model.get("byte_fallback"))
        return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, `{}` when there is no such file; raises `TokenizerError` when it is something else."""
    try:
        value = _parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not JSON: {error}", hint="download the file again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object", hint="download the file again")
    return value


def _parse(text: str | bytes) -> Any:
    """A vocabulary is a million small objects, none of them garbage: half the time went into looking for some."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text)
    finally:
        if collecting:
            gc.enable()


def read_sections(path: Path) -> dict[str, Any]:
    """tokenizer.json for who has the vocabulary from elsewhere: perhaps without `model`, which is most of it.

    The model is the last section in the files of the tokenizers library. See `read_json`.
    """
    # In another order, damaged, or not there: then the usual way knows what to do or to say.
    with suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, file.seek(0, SEEK_END) - 64))
        whole = file.read().rstrip().endswith(b"}")
        if whole and (model := _MODEL.search(head)):
            value = json.loads(head[: model.start()] + b"}")
            if value.keys() >= _SECTIONS:
                return dict(value)
    return read_json(path)


_HEAD_BYTES = 4 << 20
_MODEL = re.compile(rb',\s*"model"\s*:\s*\{')
_SECTIONS = frozenset({"added_tokens", "normalizer", "post_processor"})


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Read the file; raises `TokenizerError` when it is missing, damaged, or no BPE model."""
    raw, pairs = _in_blocks(path)
    raw = raw or read_json(path)
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
    pairs += _merges(path, merges)
    merges.clear()  # 100 MB for half a million of them, and each garbage collection looks through it
    return TokenizerJson(path, raw, vocab, pairs, _added(path, raw.get("added_tokens") or ()))


def _in_blocks(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file without its merges, and the merges; nothing when it is not printed as the tokenizers library prints it.

    A line break is never inside of a text in JSON, so lines show where to cut. In one piece Gemma's 33 MB are 130 MB of
    text, because one emoji makes each character four bytes, and as much again of objects.
    """
    with suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
        data = path.read_bytes()
        at = data.index(_MERGES) + len(_MERGES)
        end = data.index(b"\n    ]", at)
        raw = _parse(data[:at] + data[end:])
        if raw["model"]["merges"] == []:
            between = b"," + data[at : at + 8]  # the line's indentation and how a merge begins
            pairs: list[str] = []
            while at < end:
                stop = data.find(between, min(at + _BLOCK_BYTES, end), end)
                stop = end if stop < 0 else stop
                pairs += _merges(path, _parse(b"[" + data[at:stop] + b"]"))
                at = stop + 1
            return raw, tuple(pairs)
    return {}, ()


_MERGES = b'\n    "merges": ['
_BLOCK_BYTES = 1 << 20


def load(source: TokenizerJson) -> Tokenizer:
    """The tokenizer itself, without truncation and padding; raises `TokenizerError` when the library refuses it."""
    from tokenizers import Tokenizer

    with refusals(source.path):
        tokenizer = Tokenizer.from_file(str(source.path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def renumbered(source: TokenizerJson, tokenizer: Tokenizer) -> TokenizerJson:
    """With the ids that the library gives to added tokens: it numbers them itself, and drops empty ones.

    They are those of the file unless the file leaves gaps between them.
    """
    numbers = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}
    kept = (token for token in source.added if token.content in numbers)
    return replace(source, added=tuple(replace(token, id=numbers[token.content]) for token in kept))


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """For calls of the tokenizers library: what it raises becomes a `TokenizerError` that names the file.

    That is bare `Exception`, and for what its authors thought impossible the panic of Rust, which is none.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{path} is refused by the tokenizers library: {error}") from error


def _merges(path: Path, merges: list[Any]) -> tuple[str, ...]:
    """Pairs as `left right`; a space inside a part becomes U+0120, as llama.cpp expects it."""
    kinds = set(map(type, merges))
    if kinds <= {str}:
        return tuple(merges)
    if kinds == {list} and set(map(len, merges)) == {2}:
        try:
            out = tuple(map(" ".join, merges))
        except TypeError:
            out = ()  # a part is no text
        if sum(merge.count(" ") for merge in out) == len(merges):
            return out
    return tuple(_merge(path, merge) for merge in merges)


def _merge(path: Path, merge: Any) -> str:
    match merge:
        case [str(left), str(right)]:
            return f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}"
    raise TokenizerError(f"{path} has a merge that is no pair: {merge!r}")


def _added(path: Path, tokens: Any) -> tuple[AddedToken, ...]:
    out = []
    for token in tokens if isinstance(tokens, list | tuple) else [tokens]:
        match token:
            case {"id": int(number), "content": str(content)} if number >= 0:
                out.append(AddedToken.of(number, content, token))
            case _:
                raise TokenizerError(f"{path} has an added token that makes no sense: {token!r}")
    return tuple(out)
