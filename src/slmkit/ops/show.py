"""`show`: everything that is known about one artifact."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmkit.core.artifact import Artifact
from slmkit.errors import FormatError
from slmkit.formats.gguf.header import read_header, shards
from slmkit.ops.describe import gguf_facts


@dataclass(frozen=True)
class Details:
    """What `show` prints; `None` where the files do not say. `share_by_type` sums to 1."""

    artifact: Artifact
    architecture: str | None
    n_params: int | None
    context_length: int | None
    vocabulary: int | None
    tokenizer: str | None
    chat_template: bool
    bpw: float | None
    share_by_type: Mapping[str, float]


def show(artifact: Artifact) -> Details:
    """Read it off the files; raises `GgufError`, `FormatError` for damaged ones."""
    return _checkpoint(artifact) if artifact.is_checkpoint else _gguf(artifact)


def _gguf(artifact: Artifact) -> Details:
    facts = gguf_facts(artifact.path)
    metadata = read_header(shards(artifact.path)[0]).metadata
    tokenizer, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    return Details(
        artifact=artifact,
        architecture=facts["architecture"],
        n_params=facts["n_params"],
        context_length=facts["context_length"],
        vocabulary=len(metadata.get("tokenizer.ggml.tokens", ())) or None,
        tokenizer=f"{tokenizer} ({pre})" if pre else tokenizer,
        chat_template="tokenizer.chat_template" in metadata,
        bpw=facts["bpw"],
        share_by_type={name: n / facts["n_params"] for name, n in facts["params_by_type"].items()},
    )


def _checkpoint(artifact: Artifact) -> Details:
    path = artifact.root / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"cannot read {path}: {error}", hint=f"get it again: `slmkit pull {artifact.model}`"
        ) from error
    text: dict[str, Any] = config.get("text_config", config)
    names = {f.name for f in artifact.files}
    counts = _safetensors_counts(artifact)
    n_params = sum(counts.values()) or None
    return Details(
        artifact=artifact,
        architecture=(config.get("architectures") or [None])[0],
        n_params=n_params,
        context_length=text.get("max_position_embeddings"),
        vocabulary=text.get("vocab_size"),
        tokenizer=next((n for n in ("tokenizer.json", "tokenizer.model") if n in names), None),
        chat_template="chat_template.jinja" in names or _has_template(artifact),
        bpw=None,
        share_by_type={k: v / n_params for k, v in counts.items()} if n_params else {},
    )


def _safetensors_counts(artifact: Artifact) -> dict[str, int]:
    """Weights by dtype, from the headers alone (https://huggingface.co/docs/safetensors, format section)."""
    counts: dict[str, int] = {}
    for file in artifact.files:
        if not file.name.endswith(".safetensors"):
            continue
        with (artifact.root / file.name).open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            try:
                header = json.loads(stream.read(length))
                tensors = [header[name] for name in header if name != "__metadata__"]
                sizes = [(tensor["dtype"], math.prod(tensor["shape"])) for tensor in tensors]
            except (ValueError, MemoryError, OverflowError, TypeError, KeyError) as error:
                raise FormatError(f"{file.name} is damaged", hint=f"`slmkit verify {artifact.ref}`") from error
        for dtype, n in sizes:
            counts[dtype] = counts.get(dtype, 0) + n
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _has_template(artifact: Artifact) -> bool:
    path = artifact.root / "tokenizer_config.json"
    return path.is_file() and '"chat_template"' in path.read_text(encoding="utf-8")
