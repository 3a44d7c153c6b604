"""Puts together what the parts of a GGUF say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmkit.formats.gguf.model import open_model
from slmkit.ops.inspect.attention import Attention, read_attention
from slmkit.ops.inspect.template import Template, read_templates
from slmkit.ops.inspect.vocabulary import Vocabulary, read_vocabulary
from slmkit.ops.inspect.weights import Weights, read_weights


@dataclass(frozen=True)
class Inspection:
    """One model, with all its shards. `vocabulary` is `None` when the file has none."""

    path: Path
    n_files: int
    size_bytes: int
    version: int
    architecture: str
    name: str | None
    weights: Weights
    attention: Attention
    vocabulary: Vocabulary | None
    templates: tuple[Template, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Of all parts."""
        vocabulary = self.vocabulary.problems if self.vocabulary else ("it has no tokenizer",)
        templates = [f"{template.key}: {problem}" for template in self.templates for problem in template.problems]
        return (*self.weights.problems, *vocabulary, *templates)


def inspect(path: Path) -> Inspection:
    """Read headers, tokenizer and chat templates of a GGUF (or of all its shards); of the weights only RoPE factors.

    Raises `GgufError`.
    """
    model = open_model(path)
    metadata = model.metadata
    vocabulary = read_vocabulary(model)
    name = metadata.get("general.name")
    return Inspection(
        path=model.path,
        n_files=len(model.headers),
        size_bytes=model.size_bytes,
        version=model.first.version,
        architecture=model.architecture,
        name=None if name is None else str(name),
        weights=read_weights(model),
        attention=read_attention(model),
        vocabulary=vocabulary,
        templates=read_templates(metadata, vocabulary),
    )
