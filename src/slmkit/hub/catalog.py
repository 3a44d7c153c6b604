"""Small language models worth starting with: `data/catalog.toml`, read and checked."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from slmkit.errors import RefError

SizeClass = Literal["micro", "small", "medium"]
CLASSES: dict[SizeClass, tuple[float, float]] = {"micro": (0.1, 1.4), "small": (1.5, 13.9), "medium": (14.0, 30.0)}
"""Smallest and largest member, in billions of parameters rounded to one digit."""


@dataclass(frozen=True)
class CatalogEntry:
    """A model.

    `architecture` is what its config.json names. `n_params` is of the language model (no image tower), tied weights
    counted once; `gated` ones must be asked for on their page.
    """

    alias: str
    repo: str
    architecture: str
    n_params: int
    size_class: SizeClass
    licence: str
    gated: bool
    note: str


def size_class(n_params: int) -> SizeClass:
    """micro 100M–1.4B, small 1.5B–13.9B, medium 14B–30B; raises `ValueError` outside."""
    billions = round(n_params / 1e9, 1) if n_params >= 1e8 else 0.0
    for name, (least, most) in CLASSES.items():
        if least <= billions <= most:
            return name
    raise ValueError(f"{n_params} parameters: not a small language model")


@cache
def entries() -> tuple[CatalogEntry, ...]:
    """The whole catalog, smallest model first."""
    text = (resources.files("slmkit") / "data" / "catalog.toml").read_text(encoding="utf-8")
    found = (CatalogEntry(size_class=model.pop("class"), **model) for model in tomllib.loads(text)["model"])
    return tuple(sorted(found, key=lambda entry: entry.n_params))


def find(alias: str) -> CatalogEntry:
    """The entry of that name, in any case; raises `RefError` with the nearest names."""
    known = {entry.alias: entry for entry in entries()}
    entry = known.get(alias.lower())
    if entry is None:
        near = difflib.get_close_matches(alias.lower(), known, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
        hint = "see all: `slmkit catalog`; a model of the Hub is `org/name`, a file here `./name`"
        raise RefError(f"no model {alias!r} in the catalog{meant}", hint=hint)
    return entry
