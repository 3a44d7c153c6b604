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
    """All that some artifacts were made from, they, and all made from them. `edges` go from parent to child."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def node(self, digest: str) -> Node:
        """That with this digest."""
        return next(node for node in self.nodes if node.digest == digest)

    def parents(self, digest: str) -> tuple[str, ...]:
        """What it was made from, the model first."""
        return tuple(parent for parent, child in self.edges if child == digest)

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

    def find(self, digest: str, model: str | None = None) -> Known | None:
        """The artifact with these bytes; of several the one that is here, and of those the one of `model`."""
        same = [known for known in self._known if known.artifact.digest == digest]
        return min(same, key=lambda k: (k.state != "here", k.artifact.model != model), default=None)

    def parents(self, artifact: Artifact) -> Mapping[str, Known | None]:
        """What it was made from, by digest."""
        return {digest: self.find(digest, artifact.model) for digest in artifact.provenance.parents}

    def children(self, digest: str) -> list[Artifact]:
        """What was made from these bytes."""
        return [known.artifact for known in self._known if digest in known.artifact.provenance.parents]

    def lineage(self, artifacts: Sequence[Artifact]) -> Lineage:
        """All above and all below, each once, whatever edited manifests say."""
        nodes = {a.digest: Node(a.digest, a.ref, self._of(a)) for a in artifacts}
        edges: list[tuple[str, str]] = []
        todo = list(artifacts)
        while todo:
            child = todo.pop(0)
            for digest, known in self.parents(child).items():
                edges.append((digest, child.digest))
                if digest not in nodes:
                    nodes[digest] = self._parent(digest, child, known)
                    todo += [known.artifact] if known else []
        todo = list(artifacts)
        while todo:
            parent = todo.pop(0)
            for child in self.children(parent.digest):
                edges += [(digest, child.digest) for digest in child.provenance.parents]
                for digest, known in self.parents(child).items():
                    nodes.setdefault(digest, self._parent(digest, child, known))
                if child.digest not in nodes:
                    nodes[child.digest] = Node(child.digest, child.ref, self._of(child))
                    todo.append(child)
        return Lineage(tuple(nodes.values()), tuple(dict.fromkeys(edges)))

    def _of(self, artifact: Artifact) -> Known:
        return self.find(artifact.digest, artifact.model) or Known(artifact, state(artifact))

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
