"""`quality --damage`: the files of a run, found again by what they are called, and where each of them loses, which is
kept with the run.
"""

from __future__ import annotations

from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.quality import Corpus, QualityRow, QualityRun
from slmkit.core.refs import ModelRef
from slmkit.errors import ChangedError, UsageError
from slmkit.formats.base_file import is_base_file
from slmkit.ops import locate
from slmkit.ops.quality import damage as op
from slmkit.recipes.session import Session
from slmkit.registry import runs


def check_base(base: ModelRef | None) -> None:
    """Raise `UsageError` for a saved base, before anything is measured."""
    if base and base.kind == "path" and is_base_file(Path(base.name)):
        raise UsageError(f"{base} has no model in it: the worst contexts are read again", hint="`--base REF:F16`")


def damage(run: QualityRun, corpus: Corpus, session: Session) -> QualityRun:
    """The run with the damage of each file that was held against its base to the end, here and in the registry; as it
    is where there was no base. Until then it stays there as it was saved.

    Raises `NotInRegistryError` and `ChangedError` for a file that is not what was measured, and the engine's errors.
    """
    if run.base is None:
        return run
    files = {row.digest: _file(row, session) for row in run.rows if row.chunks and not row.failure}
    found = run.with_damage(op(run, files, corpus, session.progress))
    runs.amend(session.registry.home, run.document(), found.document())
    return found


def _file(row: QualityRow, session: Session) -> Artifact:
    (found,) = locate.ggufs(ModelRef.parse(row.ref), session.registry, session.progress)
    if found.digest != row.digest:
        raise ChangedError(f"{row.ref} has changed since it was measured", hint="measure it again")
    return found
