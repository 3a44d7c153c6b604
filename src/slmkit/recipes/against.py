"""What a model's files are held against: a float file that is here or can be made, never a quantized one."""

from __future__ import annotations

from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.quant import FLOATS, QUANT_TYPES, canonical
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import adopt, locate
from slmkit.ops.quantize.source import is_float
from slmkit.recipes.session import Session
from slmkit.recipes.spared import dropped_floats
from slmkit.registry.store import is_whole


def float_ref(ref: ModelRef, session: Session) -> ModelRef:
    """`ref` (no alias), unless it names a quantized file: then its model, of which a float file is known here or can be
    made.

    Raises `UsageError` where there is none.
    """
    if ref.kind == "path":
        if not is_gguf(ref):
            return ref
        found = adopt.describe(Path(ref.name), session.progress, hashed=False)
        model, is_quantized, is_had = ModelRef.parse(found.model), not is_float(found), True
    else:
        model, is_quantized, is_had = ref.with_variant(None), *_known(ref, session)
    if not is_quantized:
        return ref
    if _has_float(model, session):
        return model
    if not is_had:
        return ref  # whoever wants it says that it is not here
    raise UsageError(
        f"{ref} is quantized: there is no float file of it to judge it against",
        hint="give the checkpoint that it was made from, or a float GGUF of it (F16, BF16, F32)",
    )


def named(ref: ModelRef, session: Session) -> Artifact | None:
    """The one GGUF that `ref` names, where it is here."""
    if ref.kind == "path":
        return locate.ggufs(ref, session.registry, session.progress)[0] if is_gguf(ref) else None
    return session.registry.find(ref.model, ref.variant) if ref.variant else None


def is_gguf(ref: ModelRef) -> bool:
    """Whether it is the path of one."""
    return ref.kind == "path" and Path(ref.name).suffix.lower() == ".gguf"


def _known(ref: ModelRef, session: Session) -> tuple[bool, bool]:
    """Of what the registry may have: whether it is quantized, as far as its name tells, and whether it is here or would
    be pulled as it is.
    """
    is_on_hub = session.may_pull and not ref.name.startswith(f"{adopt.LOCAL_ORG}/")
    if ref.variant is None:  # of a model on the Hub there may be a checkpoint
        here = [a for a in session.registry.artifacts(ref.model) if is_whole(a)]
        return bool(here) and not any(a.is_checkpoint for a in here), not is_on_hub
    found = session.registry.find(ref.model, ref.variant)
    if found and is_whole(found):
        return not is_float(found), True
    name = canonical(ref.variant)
    return name in QUANT_TYPES and name not in FLOATS, is_on_hub


def _has_float(model: ModelRef, session: Session) -> bool:
    """Whether one is here, was dropped, or would be made of the checkpoint that is here."""
    registry, progress = session.registry, session.progress
    source = locate.checkpoint(model, registry, progress)
    found = locate.best_float(model.model, source, registry)
    return is_float(found) if found else source is not None or any(dropped_floats(model, session))
