"""`gc --rebuildable`: which files may go, because slmkit can make them again with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slmkit.core.artifact import Artifact
from slmkit.errors import EngineError, LockedError
from slmkit.recipes.remake import cannot, other_tools
from slmkit.registry.lineage import Family, state
from slmkit.registry.store import Registry


@dataclass(frozen=True)
class Candidate:
    """An artifact that is here, and why it must stay; `None` when it may go."""

    artifact: Artifact
    why_not: str | None


def candidates(
    artifacts: Sequence[Artifact], registry: Registry, build: Callable[[], Mapping[str, str]]
) -> list[Candidate]:
    """Of each that is here, whether it may go. `build` tells the engine's build, and is asked once, if at all.

    It may when it was made here by the tools of now with recorded parameters, and all that it was made from is here,
    can be made again itself, or is a commit of the Hub.
    """
    family, now = Family(registry), _Once(build)
    return [Candidate(a, _why_not(a, family, now)) for a in artifacts if state(a) == "here"]


def drop(artifacts: Sequence[Artifact], registry: Registry) -> tuple[list[Artifact], list[Artifact]]:
    """Delete their files and keep the recipes; gives those that went, and those on which another process works."""
    gone: list[Artifact] = []
    busy: list[Artifact] = []
    for artifact in artifacts:
        try:
            with registry.locked(artifact.model):
                if registry.find(artifact.model, artifact.variant) == artifact:
                    registry.drop(artifact)
                    gone.append(artifact)
        except LockedError:
            busy.append(artifact)
    return gone, busy


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


def _why_not(artifact: Artifact, family: Family, build: _Once, below: frozenset[str] = frozenset()) -> str | None:
    if artifact.digest in below:
        return "its manifest says that it was made from itself"
    why = cannot(artifact)
    if why is not None:
        return why
    quantized = artifact.provenance.action == "quantize"
    others = other_tools(artifact, build() if quantized else {})
    if others:
        return f"made by other tools: {others[0]}"
    for digest, known in family.parents(artifact).items():
        if known is None:
            return f"what it was made from is not registered: {digest[:19]}"
        if known.state == "here" or _is_on_the_hub(known.artifact):
            continue
        why = _why_not(known.artifact, family, build, below | {artifact.digest})
        if why is not None:
            return f"{known.artifact.ref} is {known.state}: {why}"
    return None


def _is_on_the_hub(artifact: Artifact) -> bool:
    p = artifact.provenance
    return p.action == "pull" and p.repo is not None and p.commit is not None
