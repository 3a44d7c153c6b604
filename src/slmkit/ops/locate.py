"""From what a reference says to the artifacts that are here: the registry and local paths, never the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quant import QUANT_TYPES, canonical
from slmkit.core.quantize import label_of
from slmkit.core.refs import ModelRef
from slmkit.errors import NotInRegistryError
from slmkit.hub import catalog
from slmkit.ops import adopt
from slmkit.registry.store import Registry, is_whole


def expand(ref: ModelRef) -> ModelRef:
    """Put a catalog alias's repository in its place; raises `RefError` for an alias that the catalog does not have."""
    if ref.kind != "alias":
        return ref
    entry = catalog.find(ref.name)
    return ModelRef("hub", entry.repo, ref.revision, ref.variant)


def checkpoint(ref: ModelRef, registry: Registry, progress: Progress, *, hashed: bool = True) -> Artifact | None:
    """The checkpoint that a reference names, if it is here; see `adopt.describe` for `hashed`."""
    ref = expand(ref)
    if ref.kind == "path":
        found = adopt.describe(Path(ref.name), progress, hashed=hashed)
        return found if found.is_checkpoint else None
    known = registry.find(ref.model, None)
    return known if known and is_whole(known) else None  # the Hugging Face cache is cleaned by others, too


def ggufs(ref: ModelRef, registry: Registry, progress: Progress) -> list[Artifact]:
    """The GGUF that a reference names, or all of a model's when it names no variant.

    Raises `NotInRegistryError` with the command that makes what is missing.
    """
    ref = expand(ref)
    if ref.kind == "path":
        found = adopt.describe(Path(ref.name), progress)
        if not found.is_checkpoint:
            known = registry.find(found.model, found.variant)
            return [known if known and known.digest == found.digest else replace(found, typed=ref.name)]
        ref = ModelRef("hub", found.model)
    if ref.variant is None:
        every = [a for a in registry.artifacts(ref.model) if not a.is_checkpoint]
        if not every:
            raise NotInRegistryError(f"no GGUF of {ref}", hint=f"make one: `slmkit quantize {ref} -t Q4_0`")
        return every
    one = registry.find(ref.model, ref.variant)
    if one is None:
        raise NotInRegistryError(f"no {ref} here", hint=_how_to_get(ref))
    return [one]


def _how_to_get(ref: ModelRef) -> str:
    """A quant of a GGUF repository is pulled, any other is made."""
    variant = ref.variant or ""
    if label := label_of(variant):
        return f"make it: `slmkit quantize {ref.model} -t {variant.partition('-')[0]} --name {label}`"
    if canonical(variant) not in QUANT_TYPES or "gguf" in ref.name.lower():
        return f"get it: `slmkit pull {ref}`"
    return f"make it: `slmkit quantize {ref.model} -t {variant}`"


def any_of(ref: ModelRef, registry: Registry, progress: Progress) -> list[Artifact]:
    """What is registered under a reference, or the unregistered file or folder that a path names."""
    if ref.kind == "path":
        return [adopt.describe(Path(ref.name), progress)]
    return everything(ref, registry)


def everything(ref: ModelRef, registry: Registry) -> list[Artifact]:
    """All registered artifacts that a reference covers, the checkpoint too; raises `NotInRegistryError` for none."""
    ref = expand(ref)
    if ref.kind == "path":
        path = Path(ref.name).expanduser().absolute()
        found = [a for a in registry.artifacts() if a.path == path]
    elif ref.variant is None:
        found = registry.artifacts(ref.model)
    else:
        one = registry.find(ref.model, ref.variant)
        found = [one] if one else []
    if not found:
        hint = "`slmkit list` shows what there is"
        if ref.kind == "hub" and ref.variant is None:
            hint = f"get it: `slmkit pull {ref}`; {hint}"
        raise NotInRegistryError(f"nothing registered as {ref}", hint=hint)
    return found
