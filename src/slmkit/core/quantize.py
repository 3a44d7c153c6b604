"""How a file is to be quantized, apart from its type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from slmkit.core.artifact import Artifact
from slmkit.errors import UsageError

OverrideValue = int | float | bool | str

MOST_OVERRIDE_BYTES = 127
"""`llama_model_kv_override` of llama.h (0c1e57098) has 128 bytes for a key and for a text, the last of them zero."""


@dataclass(frozen=True)
class Rule:
    """Tensors in whose name the regular expression `pattern` is found get the ggml type `type` (`Q6_K`).

    The first rule that fits decides, as with llama-quantize's `--tensor-type`. The type of the file must be a quantized
    one, and `output_type` and `embedding_type` go before rules.
    """

    pattern: str
    type: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UsageError(f"not a regular expression: {self.pattern!r}: {error}") from error
        if not self.pattern:
            raise UsageError("a rule needs the name of a tensor, or a part of it", hint="`ffn_down=Q6_K`, say")


@dataclass(frozen=True)
class Override:
    """One metadata value to be put in the place of what the source says."""

    key: str
    value: OverrideValue

    def __post_init__(self) -> None:
        for text in (self.key, self.value if isinstance(self.value, str) else ""):
            if len(text.encode()) > MOST_OVERRIDE_BYTES:
                raise UsageError(f"the engine takes at most {MOST_OVERRIDE_BYTES} bytes: {text!r}")
        if not self.key:
            raise UsageError("an override needs a key", hint="`tokenizer.ggml.add_bos_token=bool:false`, say")


@dataclass(frozen=True)
class QuantizeSpec:
    """The defaults are what `slmkit quantize REF -t TYPE` does.

    `output_type` and `embedding_type` are ggml types for output.weight and token_embd.weight. `pure` gives every matrix
    the type's base, without llama.cpp's mixture; `leave_output` keeps output.weight as it is. `keep_split` writes as
    many shards as the source has. `prune_layers` are left out and the rest counted anew. `max_buffer_bytes` bounds what
    the engine holds of one tensor; `None` is its own bound, 8 GiB. `allow_requantize` takes a source that is quantized
    already.
    """

    rules: tuple[Rule, ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    pure: bool = False
    leave_output: bool = False
    keep_split: bool = False
    prune_layers: tuple[int, ...] = ()
    overrides: tuple[Override, ...] = ()
    allow_requantize: bool = False
    max_buffer_bytes: int | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What makes another file of the same source and type, as JSON; only what was asked for."""
        chosen: dict[str, Any] = {
            "rules": [[rule.pattern, rule.type] for rule in self.rules],
            "output_type": self.output_type,
            "embedding_type": self.embedding_type,
            "pure": self.pure,
            "leave_output": self.leave_output,
            "keep_split": self.keep_split,
            "prune_layers": sorted(set(self.prune_layers)),
            "overrides": {override.key: override.value for override in self.overrides},
            "allow_requantize": self.allow_requantize,
        }
        return {name: value for name, value in chosen.items() if value}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """The spec with these `parameters`, which may have others beside them; `max_buffer_bytes` is no part of it."""
        return cls(
            rules=tuple(Rule(pattern, kind) for pattern, kind in parameters.get("rules", ())),
            output_type=parameters.get("output_type"),
            embedding_type=parameters.get("embedding_type"),
            pure=parameters.get("pure", False),
            leave_output=parameters.get("leave_output", False),
            keep_split=parameters.get("keep_split", False),
            prune_layers=tuple(parameters.get("prune_layers", ())),
            overrides=tuple(Override(key, value) for key, value in parameters.get("overrides", {}).items()),
            allow_requantize=parameters.get("allow_requantize", False),
        )

    def is_met_by(self, made: Artifact) -> bool:
        """Whether a quant is what this asks for, no more and no less."""
        return QuantizeSpec.of(made.provenance.parameters).parameters == self.parameters
