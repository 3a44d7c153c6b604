"""From what was typed to values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from slmkit.cli.output import Output, current
from slmkit.cli.progress import reporter
from slmkit.core.refs import ModelRef
from slmkit.errors import RefError
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry


def parse(text: str) -> ModelRef:
    """One reference. What is no path but names something here gets the hint to type it as one."""
    ref = ModelRef.parse(text)
    if ref.kind == "hub" and Path(text).exists():
        current().say(f"{text} is taken for a model on the Hub; the one that is here is `./{text}`")
    if ref.kind == "alias" and Path(text).exists():
        from slmkit.hub import catalog

        try:
            catalog.find(ref.name)
        except RefError as error:
            raise RefError(error.message, hint=f"for the file or folder that is here type `./{text}`") from error
    return ref


def parse_all(texts: Sequence[str]) -> list[ModelRef]:
    """Several references."""
    return [parse(text) for text in texts]


def imatrix_of(text: str | None) -> Path | Literal["auto"] | None:
    """The importance matrix that `--imatrix auto|none|FILE` names."""
    if text == "auto":
        return "auto"
    return Path(text) if text and text != "none" else None


def session(output: Output, *, may_pull: bool = True, offline: bool = False) -> Session:
    """The registry of this user, and a progress that fits the output."""
    return Session(Registry(), reporter(output), may_pull=may_pull, offline=offline)
