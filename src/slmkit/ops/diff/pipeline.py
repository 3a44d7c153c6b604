"""Puts together what differs in weights and in metadata."""

from __future__ import annotations

from pathlib import Path

from slmkit.core.diff import Diff, FileSide
from slmkit.core.progress import SILENT, Progress
from slmkit.formats.gguf.model import GgufModel, open_model
from slmkit.ops.diff.metadata import TEMPLATE, compare_metadata, compare_templates, compare_tokenizers
from slmkit.ops.diff.weights import compare_weights


def diff(a: Path, b: Path, *, progress: Progress = SILENT) -> Diff:
    """What B has otherwise than A; each may be a file or any of its shards.

    Weights are compared as numbers, a few rows at a time, in bounded memory. Raises `GgufError`.
    """
    one, two = open_model(a), open_model(b)
    values = one.first, two.first
    return Diff(
        a=_side(one),
        b=_side(two),
        metadata=compare_metadata(*values),
        tokenizer=compare_tokenizers(*values),
        template=compare_templates(*values),
        tensors=compare_weights(one, two, progress),
    )


def _side(model: GgufModel) -> FileSide:
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    return FileSide(
        path=str(model.path),
        architecture=model.architecture,
        size_bytes=model.size_bytes,
        n_params=model.n_params,
        bpw=model.bpw,
        vocabulary=len(tokens) if isinstance(tokens, list) else None,
        has_template=TEMPLATE in model.metadata,
    )
