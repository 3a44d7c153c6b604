"""Puts together what the parts of a GGUF say."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from slmkit.formats.gguf.hollow import Hollow
from slmkit.formats.gguf.model import open_model
from slmkit.ops.inspect.attention import Attention, read_attention
from slmkit.ops.inspect.template import Template, read_templates
from slmkit.ops.inspect.vocabulary import Vocabulary, read_vocabulary
from slmkit.ops.inspect.weights import Weights, read_weights


@dataclass(frozen=True)
class Inspection:
    """One model, with all its shards. `vocabulary` is `None` when the file has none.

    `path` is `None` for a file that is not made: then it is what `checkpoint`, a reference, would become, and `remarks`
    say what else should be known of that. It is `None`, too, for a file that is only on the Hub, as `hub`, a reference.
    """

    path: Path | None
    n_files: int
    size_bytes: int
    version: int
    architecture: str
    name: str | None
    weights: Weights
    attention: Attention
    vocabulary: Vocabulary | None
    templates: tuple[Template, ...]
    checkpoint: str | None = None
    remarks: tuple[str, ...] = ()
    hub: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Of all parts."""
        vocabulary = self.vocabulary.problems if self.vocabulary else ("it has no tokenizer",)
        templates = [f"{template.key}: {problem}" for template in self.templates for problem in template.problems]
        return (*self.weights.problems, *vocabulary, *templates)


def inspect(path: Path, variant: str | None = None) -> Inspection:
    """Read headers, tokenizer and chat templates of a GGUF (or of all its shards); of the weights only RoPE factors.
    `variant` is what it is registered as.

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
        weights=read_weights(model, variant),
        attention=read_attention(model),
        vocabulary=vocabulary,
        templates=read_templates(metadata, vocabulary),
    )


def inspect_unmade(
    hollow: Hollow, name: str, checkpoint: str, *, known: Mapping[str, bytes], remarks: tuple[str, ...] = ()
) -> Inspection:
    """The same of the file `name` that `checkpoint` would become; `known` has the data of those tensors that are read.

    Raises `OSError` when there is no room for its header.
    """
    with tempfile.TemporaryDirectory(prefix="slmkit-") as folder:
        path = Path(folder) / name
        hollow.write(path, known)
        return replace(inspect(path), path=None, checkpoint=checkpoint, remarks=remarks)
