"""What all of them begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.progress import Progress
from slmkit.core.refs import ModelRef
from slmkit.registry.store import Registry

if TYPE_CHECKING:
    from slmkit.recipes.session import Session

Reference = str | ModelRef


def reference(ref: Reference) -> ModelRef:
    """What was typed, as a value; raises `RefError`."""
    return ref if isinstance(ref, ModelRef) else ModelRef.parse(ref)


def importance(imatrix: str | Path | None) -> Path | Literal["auto"] | None:
    """The importance matrix that was named: a file, `auto`, or none."""
    if imatrix == "auto":
        return "auto"
    return Path(imatrix) if imatrix else None


def session(progress: Progress, may_pull: bool = True, *, offline: bool = False) -> Session:
    """The registry of this user."""
    from slmkit.recipes.session import Session

    return Session(Registry(), progress, may_pull=may_pull, offline=offline)
