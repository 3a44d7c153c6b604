"""How a checkpoint is to be converted, apart from the type of its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from slmkit.core.artifact import Artifact
from slmkit.errors import UsageError

Converter = Literal["slmkit", "upstream"]

_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class ConvertSpec:
    """The defaults are what `slmkit convert REF` does.

    `pre` is llama.cpp's name for the way a byte-level tokenizer splits text; `None` recognizes it. A file of more than
    `split_max_bytes` of weights is split. `converter` `upstream` is llama.cpp's own, taken from the checkout
    `llama_cpp` when that is given. `verify` loads the finished file and decodes with it.
    """

    pre: str | None = None
    split_max_bytes: int | None = None
    converter: Converter = "slmkit"
    llama_cpp: Path | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if self.converter not in get_args(Converter):
            raise UsageError(f"no converter {self.converter!r}", hint=f"one of {', '.join(get_args(Converter))}")
        if self.split_max_bytes is not None and self.split_max_bytes < 1:
            raise UsageError("a shard must have room for at least one byte", hint="give a size such as `2G`")
        if self.converter == "upstream" and self.pre is not None:
            raise UsageError("llama.cpp's converter takes no name of a pre-tokenizer", hint="leave out one of the two")
        if self.llama_cpp is not None and self.converter != "upstream":
            raise UsageError("a llama.cpp checkout is of use only with `--converter upstream`", hint="add it")

    @property
    def parameters(self) -> dict[str, Any]:
        """What makes another file of the same checkpoint and type, for the provenance; only what was asked for."""
        converter = None if self.converter == "slmkit" else self.converter
        chosen = {"converter": converter, "pre": self.pre, "split_max_bytes": self.split_max_bytes}
        return {name: value for name, value in chosen.items() if value is not None}

    def is_met_by(self, made: Artifact) -> bool:
        """Whether a GGUF is what this asks for; one that was not converted here has nothing to do with it."""
        p = made.provenance
        return p.action != "convert" or self.parameters.items() <= p.parameters.items()


def split_size(text: str) -> int:
    """Bytes of `500M` or `2G`; K, M and G are powers of 1000, as llama.cpp's tools take them. Raises `UsageError`."""
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None or not int(match[1]):
        raise UsageError(f"not a size of shards: {text!r}", hint="a number, then K, M or G: `500M`, `2G`")
    return int(match[1]) * _UNITS[match[2]]
