"""How a file is to be quantized, apart from its type."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from slmkit.core.artifact import Artifact
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.target import Mix, TargetSpec
from slmkit.errors import UsageError

OverrideValue = int | float | bool | str

MOST_OVERRIDE_BYTES = 127
"""`llama_model_kv_override` of llama.h (0c1e57098) has 128 bytes for a key and for a text, the last of them zero."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_LABEL_CHARACTERS = 32
_LAYERS = re.compile(r"(\d+)(?:-(\d+))?")


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

    @classmethod
    def parse(cls, text: str) -> Self:
        """`KEY=int:5`, `KEY=float:0.5`, `KEY=bool:true`, `KEY=str:text`, as llama-quantize's `--override-kv`."""
        key, _, typed = text.partition("=")
        kind, colon, value = typed.partition(":")
        try:
            if kind not in ("int", "float", "bool", "str") or not colon:
                raise ValueError
            return cls(key.strip(), _override_value(kind, value))
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"not a metadata value: {text!r}", hint="KEY=int:5, KEY=float:0.5, KEY=bool:true or KEY=str:text"
            ) from error

    @property
    def typed(self) -> str:
        """What `parse` reads."""
        match self.value:
            case bool():
                return f"{self.key}=bool:{str(self.value).lower()}"
            case int() | float():
                return f"{self.key}={type(self.value).__name__}:{self.value}"
            case _:
                return f"{self.key}=str:{self.value}"


def _override_value(kind: str, value: str) -> OverrideValue:
    match kind:
        case "int":
            number = int(value)
            if not 0 <= number < 1 << 32:  # the engine writes it as UINT32, and drops the sign
                raise ValueError
            return number
        case "float":
            return float(value)
        case "bool":
            return {"true": True, "false": False}[value.lower()]
        case _:
            return value


def parse_layers(text: str) -> tuple[int, ...]:
    """`3,5-8` are the layers 3, 5, 6, 7 and 8, counted from 0."""
    layers: set[int] = set()
    for part in text.split(","):
        match = _LAYERS.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"not a list of layers: {text!r}", hint="`3,5-8`, say: layers are counted from 0")
        layers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(layers))


@dataclass(frozen=True)
class ImatrixFile:
    """An importance matrix: `name` is that of its text or its file, `digest` is `sha256:` and that of its bytes."""

    name: str
    path: Path
    digest: str

    @property
    def is_own(self) -> bool:
        """Whether it is one of the registry: those are called by their text, files by their names."""
        return self.name != self.path.name


@dataclass(frozen=True)
class QuantizeSpec:
    """The defaults are what `slmkit quantize REF -t TYPE` does.

    `output_type` and `embedding_type` are ggml types for output.weight and token_embd.weight. `pure` gives every matrix
    the type's base, without llama.cpp's mixture; `leave_output` keeps output.weight as it is. `keep_split` writes as
    many shards as the source has. `prune_layers` are left out and the rest counted anew. `max_buffer_bytes` bounds what
    is held of a tensor at a time; `None` is a default. `allow_requantize` takes a source that is quantized
    already. `target` is the size that the rules were found for, and `mix` how: no part of what is asked for.
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
    imatrix: ImatrixFile | None = None
    target: TargetSpec | None = None
    mix: Mix | None = None

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
            "imatrix": self.imatrix and self.imatrix.name,
            "target": self.target and {self.target.unit: self.target.value},
        }
        return {name: value for name, value in chosen.items() if value}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """The spec with these `parameters`, which may have others beside them; `max_buffer_bytes` is no part of it."""
        imatrix = parameters.get("imatrix")
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
            imatrix=ImatrixFile(imatrix, Path(), "") if imatrix else None,
            target=next((TargetSpec(*target) for target in parameters.get("target", {}).items()), None),
        )

    def is_met_by(self, made: Artifact) -> bool:
        """Whether a quant is what this asks for, no more and no less."""
        return QuantizeSpec.of(made.provenance.parameters).parameters == self.parameters

    @property
    def options(self) -> str:
        """As options of `slmkit quantize`; empty for the defaults. Those of a target are not among them."""
        words = [word for rule in self.rules for word in ("--rule", f"{rule.pattern}={rule.type}")]
        words += ["--output-type", self.output_type] if self.output_type else []
        words += ["--embedding-type", self.embedding_type] if self.embedding_type else []
        words += ["--pure"] if self.pure else []
        words += ["--leave-output"] if self.leave_output else []
        words += ["--keep-split"] if self.keep_split else []
        words += ["--prune-layers", ",".join(map(str, self.prune_layers))] if self.prune_layers else []
        words += [word for override in self.overrides for word in ("--override-kv", override.typed)]
        words += ["--allow-requantize"] if self.allow_requantize else []
        words += ["--max-buffer", str(self.max_buffer_bytes)] if self.max_buffer_bytes else []
        if self.imatrix:
            words += ["--imatrix", "auto" if self.imatrix.is_own else str(self.imatrix.path)]
        return shlex.join(words)

    @property
    def label(self) -> str:
        """What tells its files from those of other specs, in a name: `pure`, `imatrix`, `rules-3f9a1c`; empty for
        the defaults. How the files are split is no part of it: the weights are the same.
        """
        if self.target:
            return self.target.label
        chosen = {name: value for name, value in self.parameters.items() if name != "keep_split"}
        words = [
            "pure" if self.pure else "",
            f"output-{self.output_type}" if self.output_type else "",
            f"embedding-{self.embedding_type}" if self.embedding_type else "",
            "output-kept" if self.leave_output else "",
            "requantized" if self.allow_requantize else "",
            "rules" if self.rules else "",
            "pruned" if self.prune_layers else "",
            "overrides" if self.overrides else "",
            "imatrix" if self.imatrix else "",
        ]
        label = "-".join(word for word in words if word)
        if not (self.rules or self.prune_layers or self.overrides) and len(label) <= _LABEL_CHARACTERS:
            return label
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:6]
        return f"{label if len(label) <= _LABEL_CHARACTERS - 7 else 'mixed'}-{digest}"


def variant_name(quant: QuantType, spec: QuantizeSpec, *, name: str | None = None, source: str | None = None) -> str:
    """What a quant is called: its type, and after a dash what makes it other than `slmkit quantize REF -t TYPE`.

    That is `name`, or what the spec says of itself, after the label of the `source` variant, if that has one. In place
    of the type stands `MIX` where a target decides.
    """
    if name is not None and _LABEL.fullmatch(name) is None:
        raise UsageError(f"not a name for a variant: {name!r}", hint="letters, digits, `.`, `_`, `-`; at most 32")
    label = label_of(source or "") if name is None else ""
    kind = "MIX" if spec.target else quant.name
    return "-".join(part for part in (kind, label, name or spec.label) if part)


def label_of(variant: str) -> str:
    """What stands after the type in the name of a variant: `lean` of `Q4_0-lean`, nothing of `Q4_0`."""
    kind, _, label = variant.partition("-")
    return label if kind in QUANT_TYPES else ""
