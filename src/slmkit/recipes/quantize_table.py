"""The tables `quantize` and `target` of a model in a recipe: the words of `slmkit quantize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import Override, QuantizeSpec, parse_layers, variant_name
from slmkit.core.target import TargetSpec, Unit
from slmkit.errors import UsageError
from slmkit.formats.gguf.types import weight_type
from slmkit.formats.tensor_rules import parse_rule

_SPEC: Mapping[str, Callable[[Any], Any]] = {
    "rules": lambda texts: tuple(map(parse_rule, texts)),
    "output_type": lambda text: weight_type(text).name,
    "embedding_type": lambda text: weight_type(text).name,
    "pure": bool,
    "leave_output": bool,
    "keep_split": bool,
    "prune_layers": parse_layers,
    "overrides": lambda texts: tuple(map(Override.parse, texts)),
    "allow_requantize": bool,
}
"""Of `QuantizeSpec`: how each is read."""
_LISTS, _FLAGS = ("rules", "overrides"), ("pure", "leave_output", "keep_split", "allow_requantize")
_KEYS = (*_SPEC, "imatrix", "name", "strict")


@dataclass(frozen=True)
class Quantizing:
    """How the quantized types of a model are made; `spec` says nothing of importance matrices. `imatrix` is `auto`,
    `none`, a file, or `None` where nothing is said.
    """

    spec: QuantizeSpec = QuantizeSpec()  # noqa: RUF009  it is frozen
    imatrix: str | None = None
    name: str | None = None
    strict_share: float | None = None

    @property
    def imatrix_of_types(self) -> Path | Literal["auto"] | None:
        """As `verbs.quantize` takes it."""
        found = self.imatrix_of_target
        return None if found == "newest" else found

    @property
    def imatrix_of_target(self) -> Path | Literal["auto", "newest"] | None:
        """As `quantize_to_target` takes it."""
        match self.imatrix:
            case None:
                return "newest"
            case "none":
                return None
            case "auto":
                return "auto"
            case file:
                return Path(file)


def read_quantizing(table: Any) -> Quantizing:
    """Check the table; raises `UsageError`."""
    if not isinstance(table, Mapping):
        raise UsageError("quantize must be a table such as { pure = true }")
    for key, value in table.items():
        if key not in _KEYS:
            raise UsageError(f"unknown key {key!r} in quantize", hint=f"known here: {', '.join(sorted(_KEYS))}")
        if not _is_of_its_kind(key, value):
            kind = "a list of texts" if key in _LISTS else "true or false" if key in _FLAGS else "a text"
            raise UsageError(f"{key} in quantize must be {kind}")
    spec = QuantizeSpec(**{key: read(table[key]) for key, read in _SPEC.items() if key in table})
    name = table.get("name")
    variant_name(QUANT_TYPES["Q4_0"], spec, name=name)  # complains of a name that cannot be
    if table.get("imatrix") == "":
        raise UsageError("imatrix in quantize is empty", hint='"auto", "none", or a file')
    strict = table.get("strict")
    return Quantizing(spec, table.get("imatrix"), name, None if strict is None else _share(strict))


def read_target(table: Any) -> TargetSpec:
    """Check the table; raises `UsageError`."""
    units: tuple[Unit, ...] = get_args(Unit)
    if not isinstance(table, Mapping) or len(table) != 1 or not set(table) <= set(units):
        raise UsageError(
            "target must be a table of one of size, bpw and reduction",
            hint='{ size = "1.5GiB" }, { bpw = 4.5 } or { reduction = "70%" }',
        )
    ((unit, value),) = table.items()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str) and not (unit == "bpw" and is_number):
        raise UsageError(f"{unit} in target must be {'a number' if unit == 'bpw' else 'a text'}")
    return TargetSpec.parse(unit, str(value))


def _is_of_its_kind(key: str, value: Any) -> bool:
    if key in _LISTS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, bool if key in _FLAGS else str)


def _share(text: str) -> float:
    """`5 %` is 0.05."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError as error:
        raise UsageError(f"not a percentage: {text!r}", hint='strict = "5 %", say') from error
    if not 0 <= percent <= 100:
        raise UsageError(f"strict is between 0 and 100 %, not {text!r}")
    return percent / 100
