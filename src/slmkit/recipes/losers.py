"""Removing what was made only to be compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact
from slmkit.core.pick import Removed
from slmkit.core.quant import FLOATS
from slmkit.errors import LockedError
from slmkit.recipes.rebuildable import candidates, drop
from slmkit.recipes.session import Session


def remove_losers(
    artifacts: Sequence[Artifact], made: Collection[str], session: Session, *, best: Artifact
) -> list[Removed]:
    """Of those whose digest is in `made`, delete all but the best; what can be made again with the same bytes leaves
    its recipe, by which what was measured of it stays known. A float file goes only so: others were held against it.

    What was here before, is not slmkit's own, or is being worked on by another process stays.
    """
    registry = session.registry
    going = [a for a in artifacts if a.digest in made and a.digest != best.digest and a.owned]
    found = candidates(going, registry, engine.build)
    gone, _ = drop([each.artifact for each in found if each.why_not is None], registry)
    removed = [Removed(artifact.ref, artifact.size_bytes, True) for artifact in gone]
    for each in found:
        if each.why_not is None or each.artifact.variant in FLOATS:
            continue
        try:
            registry.remove(registry.plan_removal([each.artifact]))
        except LockedError:
            session.progress.warn(f"{each.artifact.ref} stays: another slmkit is working on it")
        else:
            removed.append(Removed(each.artifact.ref, each.artifact.size_bytes, False))
    return removed
