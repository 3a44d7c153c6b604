"""`slmkit inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from slmkit.cli import options
from slmkit.cli.output import open_output

if TYPE_CHECKING:
    from slmkit.ops.inspect import Inspection
    from slmkit.ops.inspect.attention import Attention
    from slmkit.ops.inspect.template import Template
    from slmkit.ops.inspect.vocabulary import Vocabulary
    from slmkit.ops.inspect.weights import Weights

_SHOWN = 32
"""Items of an array that are shown."""


def inspect(
    ref: options.Ref, no_pull: options.NoHub = False, as_json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Say what a GGUF truly is: its types beside its label, context, RoPE, KV cache, tokenizer, chat template.

    `show` tells where a model comes from; this reads the file itself, and warns of what is wrong with it. Of a
    checkpoint it says what it would be once converted. Of what is on the Hub only headers are asked for.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.recipes import foresight

    output = open_output(as_json=as_json, quiet=quiet)
    found = foresight.inspect(parse(ref), session(output, may_pull=not no_pull))
    title = str(found.path)
    if found.checkpoint:
        title = f"{found.checkpoint}, as it would be converted"
    elif found.hub:
        title = f"{found.hub}, on the Hub"
    output.record(_values(found), "\n".join([title, *_lines(found)]))
    for problem in (*found.remarks, *found.problems):
        output.warn(problem)
    if found.checkpoint:
        output.hint(f"slmkit convert {found.checkpoint}")
    elif found.hub:
        output.hint(f"slmkit pull {found.hub}")


def _values(found: Inspection) -> dict[str, Any]:
    weights, attention = found.weights, found.attention
    return {
        **asdict(found),
        "path": None if found.path is None else str(found.path),
        "weights": {**asdict(weights), "claimed": weights.claimed, "problems": list(weights.problems)},
        "attention": {**asdict(attention), "grouping": attention.grouping},
        "problems": list(found.problems),
    }


def _lines(found: Inspection) -> Iterator[str]:
    from slmkit.core import units

    files = f", {found.n_files} files" if found.n_files > 1 else ""
    rows: dict[str, str | None] = {
        "model": f"{found.name or units.DASH}, {found.architecture}, {units.count(found.weights.n_params)} parameters",
        "file": f"{units.size(found.size_bytes)}{files}, GGUF version {found.version}",
        **_weights(found.weights),
        **_attention(found.attention),
        **(_vocabulary(found.vocabulary) if found.vocabulary else {}),
    }
    for template in found.templates or (None,):
        rows |= _template(template)
    width = max(map(len, rows))
    return (f"  {name:<{width}}  {text}" for name, text in rows.items() if text)


def _weights(weights: Weights) -> dict[str, str | None]:
    from slmkit.core import units

    shares = ", ".join(f"{name} {units.percent(share)}" for name, share in weights.share_by_type.items())
    fallbacks = ", ".join(f"{n} {name}" for name, n in weights.fallbacks.items())
    return {
        "claims to be": f"{weights.declared or units.DASH} by metadata, {weights.named or units.DASH} by name",
        "types": f"{shares} (share of parameters)",
        "on label": (weights.on_label is not None and units.percent(weights.on_label)) or None,
        "fallbacks": f"{fallbacks} (rows do not divide into blocks)" if fallbacks else None,
        "bpw": units.number(weights.bpw),
        "imatrix": _pairs(weights.imatrix) or "no word of one",
    }


def _attention(attention: Attention) -> dict[str, str | None]:
    from slmkit.core import units

    heads = f"{_number(attention.n_head)} of {_number(attention.head_dim)}, {_number(attention.n_head_kv)} of K and V"
    kv, n_ctx = attention.kv_bytes_per_token, attention.context_length
    whole = f", {units.size(kv * n_ctx)} for all of the context" if kv and n_ctx else ""
    window = f", sliding window {attention.sliding_window:,}" if attention.sliding_window else ""
    factors = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in attention.rope_factors.items())
    return {
        "layers": f"{_number(attention.n_layers)}, width {_number(attention.n_embd)}",
        "heads": heads + (f" ({attention.grouping})" if attention.grouping else ""),
        "context": f"{_number(n_ctx)} tokens{window}",
        "rope": ", ".join(part for part in (_pairs(attention.rope), factors) if part) or None,
        "KV cache": f"{units.size(kv)} for each token at F16{whole}" if kv else None,
    }


def _vocabulary(vocabulary: Vocabulary) -> dict[str, str | None]:
    merges = f", {vocabulary.n_merges:,} merges" if vocabulary.n_merges is not None else ""
    special = ", ".join(f"{name} {i} {text or '?'}" for name, (i, text) in vocabulary.special.items())
    return {
        "tokenizer": f"{vocabulary.model}{f' ({vocabulary.pre})' if vocabulary.pre else ''}, "
        f"{vocabulary.n_tokens:,} tokens, {vocabulary.n_control:,} of control{merges}",
        "special": special or None,
        "adds BOS": "yes" if vocabulary.add_bos else "no",
        "stops at": " ".join(vocabulary.stops) or None,
    }


def _template(template: Template | None) -> dict[str, str | None]:
    if template is None:
        return {"chat template": "none"}
    name = template.key.removeprefix("tokenizer.").replace("_", " ")
    parts = [f"takes {', '.join(('user', *template.takes))}", *template.remarks]
    return {name: "; ".join([*parts, f"{len(template.problems)} problems"] if template.problems else parts)}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in values.items())


def _number(value: Any) -> str:
    from slmkit.core import units

    if value is None:
        return units.DASH
    if isinstance(value, list):
        shown = " ".join(dict.fromkeys(map(_number, value[:_SHOWN])))
        return f"{shown} (by layer)"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
