"""What the weights are stored as, beside what the file calls itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmkit.core.quant import QUANT_TYPES
from slmkit.formats.gguf.header import SHARD
from slmkit.formats.gguf.model import GgufModel
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.ops.describe import declared_type, named_type

_IMATRIX = "quantize.imatrix."
_LEAST = 0.5
"""Of the weights should have the type that the file is named by; mixtures and small models have less."""


@dataclass(frozen=True)
class Weights:
    """`named` is the quant type in the file's name, `declared` that of `general.file_type`; `None` where there is none.

    `on_label` is the share of weights whose ggml type is the one that the claimed quant type is made of. `fallbacks`
    are matrices with another type whose rows do not divide into its blocks, by the type they have. `imatrix` has the
    `quantize.imatrix.*` keys.
    """

    n_params: int
    n_tensors: int
    bpw: float | None
    named: str | None
    declared: str | None
    share_by_type: Mapping[str, float]
    on_label: float | None
    fallbacks: Mapping[str, int]
    imatrix: Mapping[str, Any]

    @property
    def claimed(self) -> str | None:
        """The type that the file says it is of: by metadata, else by name."""
        return self.declared or self.named

    @property
    def problems(self) -> tuple[str, ...]:
        """Where the label misleads."""
        out = []
        if self.named and self.declared and self.named != self.declared:
            out.append(f"the file's name says {self.named}, its metadata {self.declared}")
        if self.claimed and self.on_label is not None and self.on_label < _LEAST:
            base = QUANT_TYPES[self.claimed].base
            out.append(f"called {self.claimed}, but only {self.on_label:.1%} of its weights are {base}")
        return tuple(out)


def read_weights(model: GgufModel, variant: str | None = None) -> Weights:
    """By the tensor tables alone. A file that is registered is named by its `variant`, any other by its own name."""
    by_type: Counter[str] = Counter()
    for tensor in model.tensors:
        by_type[tensor.info.type.name] += tensor.info.n_elements
    match = SHARD.fullmatch(model.path.name)
    name = f"-{variant}" if variant else match["prefix"] if match else model.path.stem
    named, declared = named_type(name), declared_type(model.metadata)
    label = declared or named
    base = QUANT_TYPES[label].base if label else None
    return Weights(
        n_params=model.n_params,
        n_tensors=len(model.tensors),
        bpw=model.bpw,
        named=named,
        declared=declared,
        share_by_type={name: n / model.n_params for name, n in by_type.most_common()} if model.n_params else {},
        on_label=by_type[base] / model.n_params if base and model.n_params else None,
        fallbacks=_fallbacks(model, base),
        imatrix={k.removeprefix(_IMATRIX): v for k, v in model.metadata.items() if k.startswith(_IMATRIX)},
    )


def _fallbacks(model: GgufModel, base: str | None) -> dict[str, int]:
    """Deduced; the output's matrix is wanted as Q6_K in most types, and Q8_0 is what it gets where that cannot be."""
    if base is None or base in ("F32", "F16", "BF16"):
        return {}
    found: Counter[str] = Counter()
    output = _output(model)
    for tensor in model.tensors:
        info = tensor.info
        block = GGML_TYPES_BY_NAME["Q6_K" if tensor.name == output and info.type.name == "Q8_0" else base].block
        if len(info.shape) > 1 and info.shape[0] % block and info.type.name not in (base, "F32"):
            found[info.type.name] += 1
    return dict(found.most_common())


def _output(model: GgufModel) -> str:
    names = {tensor.name for tensor in model.tensors}
    return "output.weight" if "output.weight" in names else "token_embd.weight"
