"""How large a file may become, and what is known of each tensor to make the best of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from slmkit.core import units
from slmkit.errors import UsageError

Unit = Literal["size", "bpw", "reduction"]


@dataclass(frozen=True)
class TargetSpec:
    """`size`: bytes of the whole file; `bpw`: bits per weight over all tensors; `reduction`: the share of the source
    file's size that is to be saved.
    """

    unit: Unit
    value: float

    def __post_init__(self) -> None:
        if not self.value > 0 or self.value == float("inf") or (self.unit == "reduction" and self.value >= 1):
            is_share = self.unit == "reduction"
            allowed, given = ("between 0 and 100 %", self.value * 100) if is_share else ("above 0", self.value)
            raise UsageError(f"a target {self.unit} is {allowed}, not {given:g}{' %' if is_share else ''}")

    @classmethod
    def parse(cls, unit: Unit, text: str) -> Self:
        """A size is `1.5GiB`, bits per weight `4.5`, a reduction `70%`; raises `UsageError`."""
        if unit == "size":
            return cls(unit, units.parse_size(text))
        try:
            if unit == "reduction":
                return cls(unit, round(float(text.strip().removesuffix("%")) / 100, 6))
            return cls(unit, float(text))
        except ValueError as error:
            example = "70%" if unit == "reduction" else "4.5"
            raise UsageError(f"not a target {unit}: {text!r}", hint=f"`--target-{unit} {example}`, say") from error

    @property
    def label(self) -> str:
        """What stands after `MIX-` in the variant's name: `1.50GiB`, `4.50bpw`, `minus70pct`."""
        match self.unit:
            case "size":
                return f"{units.size(self.value).replace(' ', '')}"
            case "bpw":
                return f"{self.value:.2f}bpw"
            case _:
                return f"minus{self.value * 100:g}pct"

    @property
    def typed(self) -> str:
        """What `parse` reads."""
        return f"{self.value * 100:g}%" if self.unit == "reduction" else f"{self.value:.12g}"

    def __str__(self) -> str:
        match self.unit:
            case "size":
                return units.size(self.value)
            case "bpw":
                return f"{self.value:g} bpw"
            case _:
                return f"{self.value * 100:g} % less"

    def budget_bytes(self, *, source_bytes: int, n_params: int, beside_bytes: int) -> int:
        """What all tensors together may take, of a source file of `source_bytes` with `n_params` weights;
        `beside_bytes` are those of the file that are no tensor's.
        """
        match self.unit:
            case "size":
                return int(self.value) - beside_bytes
            case "bpw":
                return int(self.value * n_params / 8)
            case _:
                return int(source_bytes * (1 - self.value)) - beside_bytes

    def used_share(self, *, size_bytes: int, bpw: float, source_bytes: int) -> float:
        """How much of what a file might have become it is."""
        match self.unit:
            case "size":
                return size_bytes / self.value
            case "bpw":
                return bpw / self.value
            case _:
                return size_bytes / (source_bytes * (1 - self.value))


@dataclass(frozen=True)
class Mix:
    """How the types of a target's file were found: those that a tensor could get, and what was made as small as can be.

    `expected_kld` is what that came to, in nats; with no other mix of the candidates could it be less than `bound_kld`.
    """

    objective: str
    candidates: tuple[str, ...]
    expected_kld: float
    bound_kld: float

    @property
    def parameters(self) -> dict[str, Any]:
        """For the provenance."""
        return {"objective": self.objective, "candidates": list(self.candidates)}

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the file by it."""
        return {"expected_kld": self.expected_kld, "bound_kld": self.bound_kld}


@dataclass(frozen=True)
class Option:
    """One tensor in one ggml type: its bytes, and its part in what the whole file is worse than its source."""

    type: str
    size_bytes: int
    error: float
