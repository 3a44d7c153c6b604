"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and rotary halves left where they are."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from slmkit.formats.gguf.writer import Value
from slmkit.ops.convert.arch.llama import Llama
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.rows import Rows


class Qwen2(Llama):
    """Only what differs from Llama."""

    name = "qwen2"
    hf_names: ClassVar[tuple[str, ...]] = ("Qwen2ForCausalLM",)
    scalings = frozenset({None, "default", "linear", "yarn"})

    @property
    def writes_head_dim(self) -> bool:
        """transformers has no default for it here."""
        return self.config.has("head_dim")

    def late_metadata(self) -> dict[str, Value]:
        """None."""
        return {}

    def vocab(self, folder: Path) -> dict[str, Value]:
        """Without Llama's special cases."""
        return Architecture.vocab(self, folder)

    def rows(self, name: str, rows: Rows) -> Rows:
        """As they are."""
        return rows
