"""`verify --rederive`: make artifacts again in a temporary place and compare the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact, File
from slmkit.errors import ChangedError, ConvertError, EngineError, FormatError
from slmkit.formats.gguf.difference import first_difference
from slmkit.recipes.remake import cannot, other_tools, remake
from slmkit.recipes.session import Session
from slmkit.registry import atomic
from slmkit.registry.lineage import Family, called

Answer = Literal["same", "differs", "cannot"]


@dataclass(frozen=True)
class Rederived:
    """The answer for one artifact. `why` says where the bytes begin to differ, or why it cannot be made again;
    `other_tools` are those that made it and are others now.
    """

    ref: str
    answer: Answer
    why: str | None = None
    other_tools: tuple[str, ...] = ()


def rederive(artifacts: Sequence[Artifact], session: Session, *, n_threads: int | None = None) -> Iterator[Rederived]:
    """Each in turn: made from its parents with the parameters of its manifest, compared by sha256, thrown away.

    What an error of converter or engine stops is answered with `cannot`. Raises `DiskFullError`.
    """
    family = Family(session.registry)
    build: Mapping[str, str] = {}
    for artifact in artifacts:
        why = cannot(artifact)
        if why is not None:
            yield Rederived(artifact.ref, "cannot", why)
            continue
        if artifact.provenance.action == "quantize" and not build:
            build = engine.build()
        yield _one(artifact, family, session, other_tools(artifact, build), n_threads)


def _one(
    artifact: Artifact, family: Family, session: Session, others: tuple[str, ...], n_threads: int | None
) -> Rederived:
    missing = missing_parent(artifact, family)
    if missing is not None:
        return Rederived(artifact.ref, "cannot", missing, others)
    parents = [known.artifact for known in family.parents(artifact).values() if known]
    with atomic.scratch(session.registry.home) as folder:
        try:
            made = remake(artifact, parents, folder, session, n_threads=n_threads)
        except (ConvertError, EngineError, FormatError, ChangedError) as error:
            return Rederived(artifact.ref, "cannot", error.message, others)
        if _digests(made) == _digests(artifact.files):
            return Rederived(artifact.ref, "same", None, others)
        return Rederived(artifact.ref, "differs", _difference(artifact, made, folder), others)


def missing_parent(artifact: Artifact, family: Family) -> str | None:
    """What is not here of that which it was made from, and how to get it."""
    for digest, known in family.parents(artifact).items():
        if known is None:
            return f"{called(digest, artifact) or 'its parent'} ({digest[:19]}) is not registered with these bytes"
        if known.state != "here":
            parent = known.artifact
            again = parent.provenance.action == "pull" or cannot(parent) is None
            return f"{parent.ref} is {known.state}" + (f": `slmkit get {parent.ref}`" if again else "")
    return None


def _digests(files: Sequence[File]) -> list[str]:
    return [file.sha256 for file in files]


def _difference(artifact: Artifact, made: Sequence[File], folder: Path) -> str:
    if len(made) != len(artifact.files):
        return f"{len(made)} files instead of {len(artifact.files)}"
    for old, new in zip(artifact.files, made, strict=True):
        if old.sha256 == new.sha256:
            continue
        try:
            what = first_difference(artifact.root / old.name, folder / new.name)
        except FormatError as error:
            what = error.message
        if what is None:
            return f"{old.name} is what it should be, its manifest says something else"
        return what if len(made) == 1 else f"{old.name}: {what}"
    return "nothing"
