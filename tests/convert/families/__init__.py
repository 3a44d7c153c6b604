"""Tiny checkpoints, one module for each family: llama.cpp's converter and ours must agree on them.

A module has `CASES`; it is found by itself. `scripts/golden` makes the golden data that `test_golden.py` compares with,
`test_logits.py` compares llama.cpp's output on the converted file with a forward pass in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from tests.convert.forward import Decoder

TOLERANCE = 2e-3
"""Of the spread of the logits: llama.cpp rounds activations in places (float16 tables of exp and gelu)."""


@dataclass(frozen=True)
class Case:
    """One checkpoint. Its folder has the case's name, which the converter reads.

    `make(folder)` writes it; with `tokenizer="smollm2"` the folder has that real byte-level tokenizer already.
    `forward` is what it computes, `None` when another case of the family shows that already. Without `outtypes` there
    is nothing to compare with: llama.cpp's converter makes another model of it, or none. `tolerance` is of the spread
    of the logits: llama.cpp rounds activations in places (float16 tables of exp and gelu). `upstream` are options
    that llama.cpp's converter needs for it.
    """

    make: Callable[[Path], Path]
    outtypes: tuple[str, ...] = ("f16",)
    tokenizer: str = "own"
    forward: type[Decoder] | None = None
    tolerance: float = TOLERANCE
    upstream: tuple[str, ...] = ()


def cases() -> dict[str, Case]:
    """All of them, by name."""
    out: dict[str, Case] = {}
    for module in iter_modules(__path__):
        found: dict[str, Any] = import_module(f"{__name__}.{module.name}").CASES
        assert not out.keys() & found.keys()
        out |= found
    return out
