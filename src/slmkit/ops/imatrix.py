"""`imatrix`: a GGUF and a text become an importance matrix."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp.imatrix import collect
from slmkit.core import units
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.imatrix import CHUNK_TOKENS, Calibration
from slmkit.core.progress import Progress
from slmkit.errors import ChangedError, UsageError
from slmkit.host.probe import physical_cores
from slmkit.ops import corpora
from slmkit.ops.describe import now
from slmkit.registry import atomic, dropped, imatrices
from slmkit.registry.store import Registry, is_current, is_whole
from slmkit.registry.unchanged import unchanged


@dataclass(frozen=True)
class ImatrixReport:
    """A finished one; `fresh` is false when it was there already."""

    source: Artifact
    artifact: Artifact
    fresh: bool


def imatrix(
    source: Artifact,
    calibration: Calibration,
    registry: Registry,
    progress: Progress,
    *,
    n_chunks: int | None = None,
    force: bool = False,
    n_threads: int | None = None,
) -> ImatrixReport:
    """Collect on at most `n_chunks` chunks and register it; a run that was interrupted is gone on with.

    One that was collected on another file of the model stays, and one that GGUFs could be made again with is replaced
    with `force` only.

    Raises `UsageError` for a checkpoint, a text too short or one that is needed, `ChangedError`, `DiskFullError` and
    the engine's errors.
    """
    source.require_gguf()
    if not force and (found := _there(source, calibration, registry, n_chunks)):
        return ImatrixReport(source, found, fresh=False)
    threads = n_threads or physical_cores()
    subject = hashlib.sha256(json.dumps([source.digest, calibration.sha256]).encode()).hexdigest()
    with imatrices.locked(registry, source.model, progress):
        name = name_of(source, calibration, registry)
        here = imatrices.place(registry, source.model, name)
        if force:
            here.state.unlink(missing_ok=True)
        elif found := _there(source, calibration, registry, n_chunks):  # who had the lock has made it
            return ImatrixReport(source, found, fresh=False)
        _check_needed(source, name, registry, progress, force=force)
        with atomic.staged(here.target) as folder:
            made = folder / here.target.name
            try:
                with unchanged(source):
                    result = collect(
                        source.path,
                        made,
                        calibration,
                        state=here.state,
                        subject=subject,
                        n_chunks=n_chunks,
                        n_threads=threads,
                        progress=progress,
                    )
            except ChangedError:
                here.state.unlink(missing_ok=True)  # may be of other bytes
                raise
            file = File(here.target.name, made.stat().st_size, atomic.sha256(made))
            artifact = Artifact(
                model=source.model,
                variant=name,
                root=here.target.parent,
                files=(file,),
                owned=True,
                provenance=Provenance(
                    "imatrix",
                    repo=source.provenance.repo,
                    commit=source.provenance.commit,
                    parents=(source.digest,),
                    parameters={
                        "text": calibration.name,
                        "text_sha256": calibration.sha256,
                        "n_chunks": n_chunks,
                        "chunk_size": CHUNK_TOKENS,
                        "source": source.ref,
                        "n_threads": threads,
                    },
                    tools={"slmkit": __version__, **result.build},
                ),
                created=now(),
                facts={
                    "n_tokens": result.n_tokens,
                    "n_chunks": result.n_chunks,
                    "n_entries": result.n_entries,
                    "reason": result.reason,
                    "moved": list(result.moved),
                },
            )
            imatrices.publish(registry, artifact, folder)
    return ImatrixReport(source, artifact, fresh=True)


def label(calibration: Calibration) -> str:
    """How the file is called: a corpus by its name, a text of the user's by its name and digest."""
    if calibration.name in corpora.names() and calibration == corpora.corpus(calibration.name):
        return calibration.name
    stem = re.sub(r"[^\w.-]", "_", Path(calibration.name).stem, flags=re.ASCII).strip(".")[:64]
    return f"{stem or 'text'}-{calibration.sha256[:8]}"


def name_of(source: Artifact, calibration: Calibration, registry: Registry) -> str:
    """How the one of `source` is called: by its label, and where that is another file's of the model, which is still
    known, by the name of `source`, too.
    """
    name = label(calibration)
    found = imatrices.find(registry, source.model, name)
    if found is None or not is_whole(found) or source.digest in found.provenance.parents:
        return name
    others = {a.digest for a in _known(registry)} & set(found.provenance.parents)
    return f"{name}-of-{source.variant}" if others else name


def _check_needed(source: Artifact, name: str, registry: Registry, progress: Progress, *, force: bool) -> None:
    """Raise `UsageError`, or with `force` warn, when one would be lost that files could be made again with."""
    found = imatrices.find(registry, source.model, name)
    if found is None or not is_whole(found):
        return
    every = _known(registry)
    here = {found.digest, *(a.digest for a in every)}
    needing = [a.ref for a in every if found.digest in a.provenance.parents and set(a.provenance.parents) <= here]
    n_chunks = units.several(found.facts["n_chunks"], "chunk")
    what = f"the importance matrix {name!r} ({n_chunks}) that is here"
    if not needing:
        progress.say(f"{what} is replaced")
        return
    needed = f"{', '.join(needing)} was made with {what}, and could not be made again without it"
    if not force:
        raise UsageError(needed, hint="replace it all the same: `slmkit imatrix` with `--force`")
    progress.warn(f"{needed}: it is replaced")


def _known(registry: Registry) -> list[Artifact]:
    return [*registry.artifacts(), *dropped.all_of(registry.home)]


def _there(source: Artifact, calibration: Calibration, registry: Registry, n_chunks: int | None) -> Artifact | None:
    """The one that collecting again would end in, if it is here, whatever its name."""
    for found in imatrices.every(registry, source.model):
        if found.provenance.parameters["text_sha256"] != calibration.sha256 or not is_current(found, source.digest):
            continue
        most = found.facts["n_chunks"]
        is_same = most == n_chunks if found.facts["reason"] == "chunks" else n_chunks is None or n_chunks >= most
        if is_same:
            return found
    return None
