"""What a model would come to in each type, before anything is made: its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Fit = Literal["yes", "tight", "no"]

ROOMY_SHARE = 0.8
"""Up to this share of the RAM a model fits; above it the system and other programs get tight, above all it does not."""

MAPPED = "CPU"
"""The engine's buffer of weights that are used as they stand in the file; in any other it keeps a copy."""


@dataclass(frozen=True)
class Context:
    """How a model would be loaded: tokens of context, and the type of the KV cache."""

    n_ctx: int
    cache_type: str = "F16"

    def __str__(self) -> str:
        return f"{self.n_ctx} tokens, KV cache {self.cache_type}"


@dataclass(frozen=True)
class LoadMemory:
    """What loading takes by the engine's own sums, in bytes.

    `weights_bytes` is by the name of the engine's buffer, each weight once. The state of recurrent layers counts as KV
    cache; `output_bytes` is what the engine's log rounds to 0.01 MiB.
    """

    weights_bytes: Mapping[str, int]
    kv_bytes: int
    compute_bytes: int
    output_bytes: int

    @property
    def file_backed_bytes(self) -> int:
        """Weights that are read where they are mapped from the file: the kernel may drop them and read them again."""
        return self.weights_bytes.get(MAPPED, 0)

    @property
    def anonymous_bytes(self) -> int:
        """All the rest, weights that the engine repacks for this CPU among it."""
        return self.total_bytes - self.file_backed_bytes

    @property
    def total_bytes(self) -> int:
        """Weights once, KV cache, compute and output buffers."""
        return sum(self.weights_bytes.values()) + self.kv_bytes + self.compute_bytes + self.output_bytes

    def fits(self, ram_bytes: int) -> Fit:
        """See `ROOMY_SHARE`."""
        if self.total_bytes <= ROOMY_SHARE * ram_bytes:
            return "yes"
        return "tight" if self.total_bytes <= ram_bytes else "no"


@dataclass(frozen=True)
class ContextPlan:
    """One way to load one type. `memory` is `None` and `refusal` says why where the engine cannot.

    `tg_estimate_tok_per_s` is for a context that is full.
    """

    context: Context
    memory: LoadMemory | None
    fits: Fit | None = None
    tg_estimate_tok_per_s: float | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class TypePlan:
    """One type. `refusal` says why it cannot be made, and all numbers are `None` then.

    `reduction` is the share of F16's size that it saves, `fallback_share` that of the parameters whose type is another
    one than wanted, because their rows do not divide into its blocks. `same_as` is another type in which each tensor
    has the same type as in this one: of such the one that falls back least. `read_bytes` are the weights that one token
    needs, `tg_estimate_tok_per_s` is for an empty context.
    """

    variant: str
    size_bytes: int | None = None
    reduction: float | None = None
    bpw: float | None = None
    fallback_share: float | None = None
    needs_imatrix: bool = False
    same_as: str | None = None
    read_bytes: int | None = None
    tg_estimate_tok_per_s: float | None = None
    contexts: tuple[ContextPlan, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True)
class ModelPlan:
    """All types, the largest first. `bandwidth_bytes_per_s` was measured on this machine, `ram_bytes` is what a model
    has to fit into. `imatrix` names the importance matrix that all quantized types are made with, if one was asked
    for; types that cannot be made without one have one in any case.
    """

    ref: str
    architecture: str
    n_params: int
    context_length: int | None
    ram_bytes: int
    bandwidth_bytes_per_s: float
    contexts: tuple[Context, ...]
    types: tuple[TypePlan, ...]
    imatrix: str | None = None
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON, memory with its sums."""
        document = asdict(self)
        for row, planned in zip(document["types"], self.types, strict=True):
            for way, context in zip(row["contexts"], planned.contexts, strict=True):
                if memory := context.memory:
                    way["memory"] |= {
                        "file_backed_bytes": memory.file_backed_bytes,
                        "anonymous_bytes": memory.anonymous_bytes,
                        "total_bytes": memory.total_bytes,
                    }
        return document
