"""From what a reference says to the artifacts that are here: the registry and local paths, never the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quant import FLOATS, QUANT_TYPES, canonical
from slmkit.core.quantize import label_of
from slmkit.core.refs import ModelRef
from slmkit.errors import NotInRegistryError, RegistryError, UsageError
from slmkit.hub import catalog
from slmkit.ops import adopt
from slmkit.registry import dropped, imatrices
from slmkit.registry.store import Registry, Removal, is_current, is_whole


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
        found = adopt.describe(Path(ref.name), progress, hashed=hashed and Path(ref.name).expanduser().is_dir())
        return found if found.is_checkpoint else None
    known = registry.find(ref.model, None)
    return known if known and is_whole(known) else None  # the Hugging Face cache is cleaned by others, too


def best_float(model: str, source: Artifact | None, registry: Registry) -> Artifact | None:
    """The most exact float GGUF that is here and was made from `source`, if that is known. One that the engine made of
    another comes after that.
    """
    every = [found for name in FLOATS if (found := registry.find(model, name))]
    every.sort(key=lambda found: found.provenance.action == "quantize")
    return next((a for a in every if (is_current(a, source.digest) if source else is_whole(a))), None)


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
        raise NotInRegistryError(f"no {ref} here", hint=_how_to_get(ref, registry))
    return [one]


def gguf(ref: ModelRef, registry: Registry, progress: Progress) -> Path:
    """The one GGUF (its first shard, or the shard that a path names) of a reference; nothing of it is read.

    Raises `UsageError` for a checkpoint and for a model of several variants, `NotInRegistryError`.
    """
    ref = expand(ref)
    if ref.kind == "path":
        path = Path(ref.name).expanduser().absolute()
        if path.is_dir():
            raise UsageError(f"{path} is a folder: a GGUF is wanted", hint=f"make one: `slmkit convert {ref}`")
        if not path.exists():
            raise UsageError(f"no such file: {path}", hint="for a model of the registry type `org/name:Q4_0`")
        return path
    found = ggufs(ref, registry, progress)
    if len(found) > 1:
        names = ", ".join(artifact.variant or "" for artifact in found)
        raise UsageError(f"{ref} is here as {names}", hint=f"say which: `{found[0].ref}`")
    return found[0].path


def _how_to_get(ref: ModelRef, registry: Registry) -> str:
    """What was dropped is made again, a quant of a GGUF repository is pulled, any other is made."""
    if dropped_of(ref, registry):
        return f"it was dropped; make it again: `slmkit get {ref}`"
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
    found = registered(ref, registry)
    if not found:
        gone = dropped_of(ref, registry)
        raise _unknown(ref, f"make it again: `slmkit get {gone[0].ref}`" if gone else None)
    return found


def importance(ref: ModelRef | None, registry: Registry) -> list[Artifact]:
    """The importance matrices of a model that is named as a whole, or of all."""
    if ref is None:
        return imatrices.all_of(registry)
    ref = expand(ref)
    return imatrices.every(registry, ref.model) if ref.kind != "path" and ref.variant is None else []


def registered(ref: ModelRef, registry: Registry) -> list[Artifact]:
    """The same, or nothing."""
    ref = expand(ref)
    if ref.kind == "path":
        path = Path(ref.name).expanduser().absolute()
        return [a for a in registry.artifacts() if a.path == path]
    if ref.variant is None:
        return registry.artifacts(ref.model)
    one = registry.find(ref.model, ref.variant)
    return [one] if one else []


def dropped_of(ref: ModelRef, registry: Registry) -> list[Artifact]:
    """What a reference covers of that which `gc` dropped."""
    ref = expand(ref)
    if ref.kind == "path":
        path = Path(ref.name).expanduser().absolute()
        return [a for a in dropped.all_of(registry.home) if a.path == path]
    if ref.variant is None:
        return dropped.all_of(registry.home, ref.model)
    one = dropped.find(registry.home, ref.model, ref.variant)
    return [one] if one else []


def remembered(ref: ModelRef, registry: Registry) -> list[Artifact]:
    """What a reference covers, registered or dropped; raises `NotInRegistryError` for nothing."""
    found = [*registered(ref, registry), *dropped_of(ref, registry)]
    if not found:
        raise _unknown(ref)
    return found


def removal(ref: ModelRef, registry: Registry) -> Removal:
    """What removing a reference would do; raises `NotInRegistryError` when it covers nothing, and `RegistryError` when
    something that was dropped could not be made again without it.
    """
    remembered(ref, registry)
    removal = registry.plan_removal(registered(ref, registry), dropped_of(ref, registry))
    if removal.orphans:
        names = ", ".join(artifact.ref for artifact in removal.orphans)
        first = removal.orphans[0].ref
        raise RegistryError(
            f"{ref} is what {names} would be made of again: it was dropped, and only its recipe is here",
            hint=f"make it first: `slmkit get {first}`; or forget it: `slmkit rm {first}`",
        )
    return removal


def _unknown(ref: ModelRef, hint: str | None = None) -> NotInRegistryError:
    if hint is None:
        hint = "`slmkit list` shows what there is"
        if expand(ref).kind == "hub" and ref.variant is None:
            hint = f"get it: `slmkit pull {expand(ref)}`; {hint}"
    return NotInRegistryError(f"nothing registered as {expand(ref)}", hint=hint)
