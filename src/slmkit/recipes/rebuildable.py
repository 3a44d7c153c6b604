"""`gc --rebuildable`: which files may go, because slmkit can make them again with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slmkit.core.artifact import Artifact
from slmkit.errors import ChangedError, EngineError, LockedError
from slmkit.recipes.remake import cannot, other_tools
from slmkit.registry.lineage import Family, state
from slmkit.registry.store import Registry
from slmkit.registry.unchanged import check_unchanged


@dataclass(frozen=True)
class Candidate:
    """An artifact that is here, and why it must stay; `None` when it may go."""

    artifact: Artifact
    why_not: str | None


def candidates(
    artifacts: Sequence[Artifact], registry: Registry, build: Callable[[], Mapping[str, str]]
) -> list[Candidate]:
    """Of each that is here, whether it may go. `build` tells the engine's build, and is asked once, if at all.

    It may when it was made here by the tools of now with recorded parameters, and all that it was made from is here
    with the bytes that it had, can be made again itself, or is a commit of the Hub.
    """
    family, now = Family(registry), _Once(build)
    return [Candidate(a, _why_not(a, family, now)) for a in artifacts if state(a) == "here"]


def drop(artifacts: Sequence[Artifact], registry: Registry) -> tuple[list[Artifact], list[Candidate]]:
    """Delete the files of what may go and keep the recipes; gives those that went, and those that stay after all:
    another process works on them, or what they were made from has changed meanwhile.
    """
    gone: list[Artifact] = []
    left: list[Candidate] = []
    for artifact in artifacts:
        try:
            with registry.locked(artifact.model):
                if registry.find(artifact.model, artifact.variant) != artifact:
                    continue
                why = _lacking(artifact, Family(registry), None)
                if why is None:
                    registry.drop(artifact)
                    gone.append(artifact)
                else:
                    left.append(Candidate(artifact, why))
        except LockedError:
            left.append(Candidate(artifact, "another slmkit is working on it"))
    return gone, left


class _Once:
    """The engine's build, asked for when it is needed; without an engine nothing of its making can be made again."""

    def __init__(self, ask: Callable[[], Mapping[str, str]]) -> None:
        self._ask = ask
        self._build: Mapping[str, str] | None = None

    def __call__(self) -> Mapping[str, str]:
        if self._build is None:
            try:
                self._build = self._ask()
            except EngineError:
                self._build = {}
        return self._build


def _why_not(
    artifact: Artifact, family: Family, build: _Once | None, below: frozenset[str] = frozenset()
) -> str | None:
    """Without `build` the tools are not asked about."""
    if artifact.digest in below:
        return "its manifest says that it was made from itself"
    why = cannot(artifact)
    if why is not None:
        return why
    if build is not None:
        others = other_tools(artifact, build() if artifact.provenance.action == "quantize" else {})
        if others:
            return f"made by other tools: {others[0]}"
    return _lacking(artifact, family, build, below)


def _lacking(
    artifact: Artifact, family: Family, build: _Once | None, below: frozenset[str] = frozenset()
) -> str | None:
    """What it would be made from, and neither is here nor can be had again."""
    for digest, known in family.parents(artifact).items():
        if known is None:
            return f"what it was made from is not registered: {digest[:19]}"
        if known.state == "here":
            try:
                check_unchanged(known.artifact)
            except ChangedError as error:
                return error.message
            continue
        if _is_on_the_hub(known.artifact):
            continue
        why = _why_not(known.artifact, family, build, below | {artifact.digest})
        if why is not None:
            return f"{known.artifact.ref} is {known.state}: {why}"
    return None


def _is_on_the_hub(artifact: Artifact) -> bool:
    p = artifact.provenance
    return p.action == "pull" and p.repo is not None and p.commit is not None
