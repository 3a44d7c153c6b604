"""What is here already, although the float file that it was made from was dropped: that need not be made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import FLOATS, QuantType
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import adopt, locate
from slmkit.recipes.session import Session
from slmkit.registry import atomic, dropped, imatrices
from slmkit.registry.store import Registry

if TYPE_CHECKING:
    from slmkit.ops.quantize import QuantizeReport


def spared(
    ref: ModelRef,
    types: Sequence[QuantType],
    session: Session,
    *,
    spec: QuantizeSpec,
    name: str | None,
    imatrix: Path | Literal["auto"] | None,
    convert_spec: ConvertSpec | None,
) -> list[QuantizeReport]:
    """All of `types`, when each is here as asked for and only their source is not; else none."""
    from slmkit.ops import quantize as quantize_op

    if any(quant.is_float for quant in types):
        return []
    for source in dropped_floats(ref, session, convert_spec):
        file = known_imatrix(imatrix, source, session.registry) if imatrix else None
        if imatrix and file is None:
            continue
        wanted = replace(spec, imatrix=file)
        found = quantize_op.made_already(source, types, session.registry, spec=wanted, name=name)
        if found:
            return found
    return []


def dropped_floats(ref: ModelRef, session: Session, spec: ConvertSpec | None = None) -> Iterator[Artifact]:
    """The recipes of float files that `ref` (no variant of it) could be quantized from, the most exact first; none
    where such a file is here.
    """
    ref = locate.expand(ref)
    if ref.variant is not None:
        return
    known = adopt.describe(Path(ref.name), session.progress, hashed=False) if ref.kind == "path" else None
    if known and not known.is_checkpoint:
        return
    model = known.model if known else ref.model
    recipes = [a for name in FLOATS if (a := dropped.find(session.registry.home, model, name))]
    if not recipes:
        return
    source = locate.checkpoint(ref, session.registry, session.progress)
    if locate.best_float(model, source, session.registry):
        return
    for recipe in recipes:
        if (source is None or source.digest in recipe.provenance.parents) and (not spec or spec.is_met_by(recipe)):
            yield recipe


def known_imatrix(wanted: Path | Literal["auto"], source: Artifact | None, registry: Registry) -> ImatrixFile | None:
    """That file, or the newest that was collected on `source`, if there is one; raises `UsageError` for no file."""
    if wanted != "auto":
        path = wanted.expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"no such file: {path}", hint="`--imatrix auto` makes an importance matrix")
        return ImatrixFile(path.name, path, f"sha256:{atomic.sha256(path)}")
    found = imatrices.newest(registry, source) if source else None
    return ImatrixFile(found.variant or "", found.path, found.digest) if found else None
