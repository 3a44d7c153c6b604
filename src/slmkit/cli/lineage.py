"""`slmkit lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slmkit.cli import options
from slmkit.cli.output import open_output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slmkit.core.artifact import Artifact
    from slmkit.registry.lineage import Lineage, Node

_NOT_DRAWN = ("source", "n_threads", "text_sha256", "llama.cpp", "features", "gpu", "objective", "candidates")
_DIGEST_LENGTH = len("sha256:") + 12


def lineage(ref: options.Ref, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """What a model was made from, up to the Hub's repository and commit, and what was made from it.

    By digests: a parent that the registry does not have, or not with these bytes any more, is shown as such. Whether
    files are there is seen by their sizes; `slmkit verify` reads them.
    """
    from slmkit.cli.refs import parse
    from slmkit.ops import locate
    from slmkit.registry.lineage import Family
    from slmkit.registry.store import Registry

    output = open_output(as_json=as_json, quiet=quiet)
    registry = Registry()
    artifacts = locate.remembered(parse(ref), registry)
    found = Family(registry).lineage(artifacts)
    values = {
        "refs": [a.ref for a in artifacts],
        "nodes": [_values(node) for node in found.nodes],
        "edges": [{"parent": parent, "child": child} for parent, child in found.edges],
    }
    output.record(values, "\n".join(_drawn(found)))


def _values(node: Node) -> dict[str, Any]:
    artifact = node.known.artifact if node.known else None
    provenance = artifact.provenance if artifact else None
    return {
        "digest": node.digest,
        "ref": node.ref,
        "state": node.known.state if node.known else "replaced" if node.replaced else "unknown",
        "action": provenance and provenance.action,
        "repo": provenance and provenance.repo,
        "commit": provenance and provenance.commit,
        "parameters": dict(provenance.parameters) if provenance else {},
        "tools": dict(provenance.tools) if provenance else {},
        "size_bytes": artifact and artifact.size_bytes,
        "created": artifact and artifact.created,
    }


def _drawn(found: Lineage) -> Iterator[str]:
    """A tree for each thing that nothing known was made into: a child hangs below its first parent."""
    below: dict[str, list[Node]] = {}
    for node in found.nodes:
        for parent in found.made_from(node)[:1]:
            below.setdefault(parent, []).append(node)
    beside = {parent for node in found.nodes for parent in found.made_from(node)[1:]}
    seen: list[Node] = []
    for node in found.nodes:
        if not found.made_from(node) and (node.digest in below or node.digest not in beside):
            yield from _branch(node, found, below, seen, "", "")
    for node in found.nodes:  # edited manifests can make a circle: it has no top
        if node not in seen and node.digest not in beside:
            yield from _branch(node, found, below, seen, "", "")


def _branch(
    node: Node, found: Lineage, below: dict[str, list[Node]], seen: list[Node], head: str, rest: str
) -> Iterator[str]:
    seen.append(node)
    artifact = node.known.artifact if node.known else None
    if artifact and artifact.provenance.action == "pull":
        yield f"{head}{artifact.provenance.repo} at {(artifact.provenance.commit or 'unknown')[:12]}  on the Hub"
        head, rest = f"{rest}└─ ", f"{rest}   "
    yield head + _line(node)
    children = [child for child in below.get(node.digest, ()) if child not in seen]
    for digest in found.made_from(node)[1:]:
        yield f"{rest}{'│' if children else ' '}  with {_line(found.node(digest), made=False)}"
    for child in children:
        last = child is children[-1]
        branch = f"{rest}{'└─ ' if last else '├─ '}"
        yield from _branch(child, found, below, seen, branch, f"{rest}{'   ' if last else '│  '}")


def _line(node: Node, *, made: bool = True) -> str:
    digest = node.digest[:_DIGEST_LENGTH]
    if node.known is None:
        what = "other bytes have this name now" if node.replaced else "not registered"
        return f"{node.ref or 'unknown'}  {digest}  {what}"
    artifact, state = node.known.artifact, node.known.state
    shown = f"dropped: `slmkit get {artifact.ref}` makes it again" if state == "dropped" else state
    return "  ".join([artifact.ref, *([_made(artifact)] if made else []), digest, shown])


def _made(artifact: Artifact) -> str:
    """The verb with what was chosen, and the versions that did it; `--json` has all of both."""
    from slmkit.core import units

    provenance = artifact.provenance
    chosen = [f"{k}={units.parameter(v)}" for k, v in provenance.parameters.items() if v and k not in _NOT_DRAWN]
    tools = ", ".join(f"{k} {v}" for k, v in provenance.tools.items() if k not in _NOT_DRAWN)
    return "  ".join(part for part in (" ".join([provenance.action, *chosen]), tools) if part)
