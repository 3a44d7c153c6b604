"""Looking at what is there, and keeping house."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slmkit.api.session import Reference, reference, session
from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT, Progress
from slmkit.registry.store import Registry, Removal

if TYPE_CHECKING:
    from slmkit.core.diff import Diff
    from slmkit.ops.inspect import Inspection
    from slmkit.ops.show import Details
    from slmkit.recipes.rederive import Rederived
    from slmkit.registry.garbage import Freed
    from slmkit.registry.lineage import Lineage
    from slmkit.registry.verify import Damage


def list_models() -> list[Artifact]:
    """Everything in the registry."""
    return Registry().artifacts()


def show(ref: Reference, *, progress: Progress = SILENT) -> list[Details]:
    """What is known about a model: one entry for each artifact that the reference covers."""
    from slmkit.ops import locate
    from slmkit.ops.show import show as op

    return [op(artifact) for artifact in locate.any_of(reference(ref), Registry(), progress)]


def inspect(ref: Reference, *, may_pull: bool = True, progress: Progress = SILENT) -> Inspection:
    """What a GGUF truly is: types by share, context, tokenizer, chat template, and what is wrong with them.

    Of a checkpoint, here or on the Hub, what it would be converted to. Of what is on the Hub no weight is downloaded.
    """
    from slmkit.recipes import foresight

    return foresight.inspect(reference(ref), session(progress, may_pull))


def diff(a: Reference, b: Reference, *, progress: Progress = SILENT) -> Diff:
    """What one GGUF has otherwise than another: tensors with their errors, metadata, tokenizer, chat template."""
    from slmkit.ops import locate
    from slmkit.ops.diff import diff as op

    one, two = (locate.gguf(reference(ref), Registry(), progress) for ref in (a, b))
    return op(one, two, progress=progress)


def lineage(*refs: Reference) -> Lineage:
    """What models were made from and what was made from them, as nodes and edges by digest."""
    from slmkit.ops import locate
    from slmkit.registry.lineage import Family

    return Family(Registry()).lineage([a for ref in refs for a in locate.remembered(reference(ref), Registry())])


def verify(ref: Reference | None = None, *, progress: Progress = SILENT) -> list[Damage]:
    """Read all files again; an empty list means that every one is sound."""
    from slmkit.ops import locate
    from slmkit.registry.verify import verify as check

    registry = Registry()
    wanted = None if ref is None else reference(ref)
    artifacts = registry.artifacts() if wanted is None else locate.everything(wanted, registry)
    files = [*artifacts, *locate.importance(wanted, registry)]
    return [damage for artifact in files for damage in check(artifact, progress)]


def rederive(ref: Reference, *, n_threads: int | None = None, progress: Progress = SILENT) -> list[Rederived]:
    """Make what `ref` names again in a temporary place, and say of each whether it has the same bytes."""
    from slmkit.ops import locate
    from slmkit.recipes.rederive import rederive as run

    here = session(progress)
    return list(run(locate.everything(reference(ref), here.registry), here, n_threads=n_threads))


def rm(ref: Reference, *, dry_run: bool = False) -> Removal:
    """Delete a variant or a whole model; with `dry_run` only say what that would be."""
    from slmkit.ops import locate

    registry = Registry()
    removal = locate.removal(reference(ref), registry)
    if not dry_run:
        registry.remove(removal)
    return removal


def drop(*refs: Reference) -> list[Artifact]:
    """Delete the files of these GGUFs that can be made again bit by bit, and keep their recipes for `get`.

    Gives those that went: what cannot be made again, or is being worked on, stays.
    """
    from slmkit.backends.llamacpp import engine
    from slmkit.ops import locate
    from slmkit.recipes import rebuildable

    registry = Registry()
    named = [a for ref in refs for a in locate.everything(reference(ref), registry)]
    found = rebuildable.candidates(named, registry, engine.build)
    return rebuildable.drop([c.artifact for c in found if c.why_not is None], registry)[0]


def gc(*, dry_run: bool = False, progress: Progress = SILENT) -> Freed:
    """Free what nothing refers to; with `dry_run` only say what that would be."""
    from slmkit.ops import gc as op
    from slmkit.registry.garbage import Freed

    registry = Registry()
    plan = op.plan(registry, progress)
    return Freed(tuple(plan), ()) if dry_run else op.free(registry, plan)
