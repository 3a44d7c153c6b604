"""The `general.*` keys: name, size, licence, tags, base models, recommended sampling.

What is read off the model card and off the model's name follows gguf-py's heuristics, by calling them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.core.progress import Progress
from slmkit.errors import TokenizerError
from slmkit.formats.gguf.types import ValueType
from slmkit.formats.gguf.writer import Value, string
from slmkit.formats.tokenizer_json import read_json

HUB = "https://huggingface.co"
"""Where a source is looked up, whatever mirror it came from."""

SAMPLING = {
    "sampling_sequence": ("sequence",),
    "sampling_top_k": ("top_k",),
    "sampling_top_p": ("top_p",),
    "sampling_min_p": ("min_p",),
    "sampling_xtc_probability": ("xtc_probability",),
    "sampling_xtc_threshold": ("xtc_threshold",),
    "sampling_temp": ("temperature",),
    "sampling_penalty_last_n": ("penalty_last_n",),
    "sampling_penalty_repeat": ("penalty_repeat", "repetition_penalty"),
    "sampling_mirostat": ("mirostat",),
    "sampling_mirostat_tau": ("mirostat_tau",),
    "sampling_mirostat_eta": ("mirostat_eta",),
}
"""Field of `gguf.Metadata` -> keys of generation_config.json, the first one wins."""


MAX_CARD_VALUES = 100_000
"""In a model card. With evaluation results there are some thousands."""


@dataclass(frozen=True)
class ParamCounts:
    """Parameters as the size label wants them: of all tensors, of those that every token meets, of one expert."""

    total: int
    shared: int
    expert: int
    n_experts: int


def general_metadata(
    folder: Path,
    architecture: str,
    config: Mapping[str, Any],
    params: ParamCounts,
    *,
    name: str | None,
    model_id: str | None,
    commit: str | None,
    progress: Progress,
) -> dict[str, Value]:
    """`general.architecture`, `general.type` and what is known beyond, in upstream's order.

    `model_id` (`org/name`) stands in for the folder's name, which in a cache is a commit; `name` overrides both as
    `general.name`. With `commit` it is a repository of the Hub, and named as the source. A model card that is no YAML
    is left out with a warning.
    """
    import gguf
    import yaml

    logging.getLogger("metadata").addHandler(logging.NullHandler())
    title = Path((model_id or folder.resolve().name).rsplit("/", 1)[-1])
    original = {key: value for key, value in config.items() if key == "_name_or_path" and isinstance(value, str)}
    sampling = _sampling(folder)

    def recorded(card: dict[str, Any]) -> dict[str, Value]:
        _check_size(card)
        found = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, original, title, params.total)
        for field, value in sampling.items():
            setattr(found, field, value)
        found.name = name or found.name or title.name
        if model_id and commit:
            found.source_repo_url = f"{HUB}/{model_id}"
            found.source_url = f"{HUB}/{model_id}/tree/{commit}"
        counts = (params.total, params.shared, params.expert, params.n_experts)
        found.size_label = found.size_label or gguf.size_label(*counts)
        # The writer has no file: it only puts the fields into keys, types and order.
        recorder = gguf.GGUFWriter(None, architecture)
        recorder.add_type(gguf.GGUFType.MODEL)
        found.set_gguf_meta_model(recorder)
        return {key: _value(item.value, ValueType(item.type)) for key, item in recorder.kv_data[0].items()}

    try:
        return recorded(gguf.Metadata.load_model_card(folder))
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, LookupError, RecursionError, OSError) as error:
        progress.warn(f"README.md of {title} is left out, its front matter makes no sense: {error}")
        return recorded({})


def _check_size(card: object) -> None:
    """Raise `ValueError` for a card whose aliases, written out, would not end soon."""
    waiting, n = [card], 0
    while waiting:
        n += 1
        if n > MAX_CARD_VALUES:
            raise ValueError(f"it has more than {MAX_CARD_VALUES:,} values")
        match waiting.pop():
            case dict(inner):
                waiting += inner.values()
            case list(inner):
                waiting += inner


def _sampling(folder: Path) -> dict[str, Any]:
    try:
        generation = read_json(folder / "generation_config.json")
    except TokenizerError:
        return {}  # as upstream: not every model has a valid one
    out = {}
    for field, keys in SAMPLING.items():
        for key in keys:
            if generation.get(key) is not None:
                out[field] = generation[key]
                break
    return out


def _value(value: Any, kind: ValueType) -> Value:
    """Model cards are written by hand: a version may be a number, a tag a date."""
    if kind is ValueType.ARRAY:
        return Value(kind, [str(item) for item in value], ValueType.STRING)
    return string(str(value)) if kind is ValueType.STRING else Value(kind, value)
