"""How a SentencePiece BPE that comes as tokenizer.json treats spaces, and whether llama.cpp can do the same.

llama.cpp's SentencePiece tokenizer turns spaces into U+2581 and merges over the whole text;
`tokenizer.ggml.add_space_prefix` says whether a space comes before the text and after each special token.
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/src/llama-vocab.cpp
"""

from __future__ import annotations

from typing import Any

from slmkit.errors import UnknownPreTokenizerError
from slmkit.formats.tokenizer_json import TokenizerJson


def space_prefix(source: TokenizerJson) -> tuple[bool, str | None]:
    """Whether a space comes before the text, and a remark when llama.cpp can do it only nearly so.

    Raises `UnknownPreTokenizerError` for a tokenizer that changes or splits text in another way.
    """
    prefix, escapes, remark = False, False, None
    for step in _steps(source, "normalizer") + _steps(source, "pre_tokenizer"):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prefix = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                escapes = True
            case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}:
                pass  # no space is left to split at
            case {"type": "Metaspace", "replacement": "\u2581"}:
                old = "always" if step.get("add_prefix_space", True) else "never"
                prefix, escapes = step.get("prepend_scheme", old) != "never", True
                remark = _METASPACE if prefix else None
            case _:
                raise _unknown(source, f"it has the step `{step.get('type') if isinstance(step, dict) else step}`")
    if not escapes:
        raise _unknown(source, "it has no step that turns spaces into U+2581")
    return prefix, remark


_METASPACE = (
    "llama.cpp puts a space before every text and after every special token; this tokenizer does not when the text "
    "begins with a space already, and perhaps only at the very beginning"
)


def _steps(source: TokenizerJson, section: str) -> list[Any]:
    step = source.raw.get(section)
    match step:
        case {"type": "Sequence", "normalizers": [*steps]} | {"type": "Sequence", "pretokenizers": [*steps]}:
            return steps
    return [] if step is None else [step]


def _unknown(source: TokenizerJson, why: str) -> UnknownPreTokenizerError:
    return UnknownPreTokenizerError(
        f"{source.path} prepares text in a way that llama.cpp's SentencePiece tokenizer does not: {why}",
        hint="`--pre default` converts it all the same; ids of texts may then differ from the original's",
    )
