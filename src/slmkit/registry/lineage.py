"""Who was made from whom: artifacts are joined by digests, which their manifests have of their parents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from slmkit.core.artifact import Artifact
from slmkit.registry import dropped, imatrices
from slmkit.registry.store import Registry

State = Literal["here", "changed", "gone", "dropped"]
"""Whether the files of an artifact are there in the size they had, in another one, not at all, or dropped by `gc`."""


@dataclass(frozen=True)
class Known:
    """An artifact of the registry, and what is there of it."""

    artifact: Artifact
    state: State


@dataclass(frozen=True)
class Node:
    """One link of a lineage. `known` is `None` for a digest that nothing in the registry has.

    `ref` is then what the child's manifest calls it, if it does; `replaced` says that this name is now other bytes.
    """

    digest: str
    ref: str | None
    known: Known | None
    replaced: bool = False


@dataclass(frozen=True)
class Lineage:
    """All that some artifacts were made from, they, and all made from them. `edges` go from parent to child, by digest:
    of nodes with the same bytes they hold for each.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def node(self, digest: str) -> Node:
        """The first with this digest."""
        return next(node for node in self.nodes if node.digest == digest)

    def parents(self, digest: str) -> tuple[str, ...]:
        """What it was made from, the model first."""
        return tuple(parent for parent, child in self.edges if child == digest)

    def made_from(self, node: Node) -> tuple[str, ...]:
        """The same of one of several with its bytes, which may have been made in another way."""
        parents = self.parents(node.digest)
        return tuple(p for p in node.known.artifact.provenance.parents if p in parents) if node.known else parents

    def children(self, digest: str) -> tuple[str, ...]:
        """What was made from it."""
        return tuple(child for parent, child in self.edges if parent == digest)


class Family:
    """Everything that a registry knows, by digest: read once, for questions about parents and children."""

    def __init__(self, registry: Registry) -> None:
        self._known = [Known(a, state(a)) for a in registry.artifacts()]
        self._known += [Known(a, "dropped") for a in dropped.all_of(registry.home)]
        self._known += [Known(a, state(a)) for a in imatrices.all_of(registry)]

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known)

    def find(self, digest: str, model: str | None = None, ref: str | None = None) -> Known | None:
        """The artifact with these bytes; of several one that is here, and of those the one of `model`, called `ref`."""
        same = [known for known in self._known if known.artifact.digest == digest]
        return min(
            same, key=lambda k: (k.state != "here", k.artifact.model != model, k.artifact.ref != ref), default=None
        )

    def parents(self, artifact: Artifact) -> Mapping[str, Known | None]:
        """What it was made from, by digest."""
        return {d: self.find(d, artifact.model, called(d, artifact)) for d in artifact.provenance.parents}

    def children(self, digest: str) -> list[Artifact]:
        """What was made from these bytes."""
        return [known.artifact for known in self._known if digest in known.artifact.provenance.parents]

    def lineage(self, artifacts: Sequence[Artifact]) -> Lineage:
        """All above and all below, each once, whatever edited manifests say."""
        nodes: dict[tuple[str, str | None], Node] = {}
        edges: list[tuple[str, str]] = []
        drawn = {a.digest for a in artifacts}

        def add(node: Node) -> None:
            nodes.setdefault((node.digest, node.ref), node)
            drawn.add(node.digest)

        for artifact in artifacts:
            add(self._node(artifact))
        todo = list(artifacts)
        while todo:
            child = todo.pop(0)
            for digest, known in self.parents(child).items():
                edges.append((digest, child.digest))
                if digest not in drawn:
                    add(self._parent(digest, child, known))
                    todo += [known.artifact] if known else []
        todo, below = list(artifacts), {a.digest for a in artifacts}
        while todo:
            parent = todo.pop(0)
            for child in self.children(parent.digest):
                for digest, known in self.parents(child).items():
                    edges.append((digest, child.digest))
                    if digest not in drawn:
                        add(self._parent(digest, child, known))
                add(self._node(child))
                if child.digest not in below:
                    below.add(child.digest)
                    todo.append(child)
        return Lineage(tuple(nodes.values()), tuple(dict.fromkeys(edges)))

    def _node(self, artifact: Artifact) -> Node:
        known = self.find(artifact.digest, artifact.model, artifact.ref)
        if known is None or known.artifact.ref != artifact.ref:
            known = Known(artifact, state(artifact))
        return Node(artifact.digest, artifact.ref, known)

    def _parent(self, digest: str, child: Artifact, known: Known | None) -> Node:
        if known is not None:
            return Node(digest, known.artifact.ref, known)
        ref = called(digest, child)
        replaced = any(k.artifact.ref == ref for k in self._known)
        return Node(digest, ref, None, replaced)


def called(digest: str, child: Artifact) -> str | None:
    """What a parent is called in the manifest of `child`: the source comes first, then what it was weighed by."""
    p = child.provenance
    if p.parents[:1] == (digest,):
        return p.parameters.get("source")
    imatrix = p.parameters.get("imatrix")
    return f"the importance matrix {imatrix!r}" if imatrix else None


def state(artifact: Artifact) -> State:
    """What is there of a registered artifact, by the sizes of its files."""
    sizes = [_size_bytes(artifact, file.name) for file in artifact.files]
    if None in sizes:
        return "gone"
    return "here" if sizes == [file.size_bytes for file in artifact.files] else "changed"


def _size_bytes(artifact: Artifact, name: str) -> int | None:
    path = artifact.root / name
    return path.stat().st_size if path.is_file() else None
