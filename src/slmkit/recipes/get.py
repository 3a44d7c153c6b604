"""`get`: what `gc --rebuildable` dropped is here again, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from slmkit.core.artifact import Artifact
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import QuantizeSpec, variant_name
from slmkit.core.refs import ModelRef
from slmkit.errors import NotInRegistryError, NotRebuiltError
from slmkit.ops import locate
from slmkit.ops.describe import now
from slmkit.recipes.remake import cannot, other_tools, remake
from slmkit.recipes.session import Session
from slmkit.registry import atomic
from slmkit.registry.lineage import Family, Known, called, state
from slmkit.registry.store import is_whole


@dataclass(frozen=True)
class Got:
    """An artifact that is here now. `fresh` is false when it was already."""

    artifact: Artifact
    fresh: bool


def get(ref: ModelRef, session: Session, *, n_threads: int | None = None) -> Iterator[Got]:
    """Make again whatever of `ref` was dropped or is gone, its parents first; yields as they are finished.

    Each gets its old manifest back, and only when its bytes are those of it.

    Raises `NotInRegistryError` when nothing is known of `ref`, `NotRebuiltError`, and the errors of the verbs.
    """
    for artifact in locate.remembered(ref, session.registry):
        if state(artifact) == "here":
            yield Got(artifact, fresh=False)
        else:
            yield from _restored(artifact, session, n_threads)


def _restored(artifact: Artifact, session: Session, n_threads: int | None) -> Iterator[Got]:
    if artifact.provenance.action == "pull" and not artifact.owned:
        yield Got(_pulled(artifact, session), fresh=True)
        return
    why = cannot(artifact)
    if why is not None:
        raise NotRebuiltError(f"{artifact.ref} cannot be made again: {why}", hint=_instead(artifact))
    for digest in artifact.provenance.parents:  # one restored may be the parent of the next: look each time
        known = Family(session.registry).find(digest, artifact.model)
        if known is None or known.state != "here":
            yield from _parent(digest, known, artifact, session, n_threads)
    parents = [known.artifact for known in Family(session.registry).parents(artifact).values() if known]
    yield Got(_made(artifact, parents, session, n_threads), fresh=True)


def _parent(
    digest: str, known: Known | None, child: Artifact, session: Session, n_threads: int | None
) -> Iterator[Got]:
    if known is not None:
        session.progress.say(
            f"{child.ref} was made from {known.artifact.ref}, which is {known.state}: getting it first"
        )
        yield from _restored(known.artifact, session, n_threads)
        return
    p = child.provenance
    source = called(digest, child) or "its parent"
    if p.action != "convert" or p.repo is None or p.commit is None:
        raise NotRebuiltError(
            f"{child.ref} was made from {source} ({digest[:19]}), which is not registered with these bytes",
            hint="if you have it elsewhere: `slmkit adopt PATH`",
        )
    yield Got(_pull(ModelRef("hub", p.repo, p.commit), digest, child, session), fresh=True)


def _pulled(artifact: Artifact, session: Session) -> Artifact:
    """A checkpoint or quant of the Hub whose files are not in the cache any more: the same commit again."""
    p = artifact.provenance
    if p.repo is None or p.commit is None:
        raise NotRebuiltError(f"nobody knows where {artifact.ref} came from", hint=f"`slmkit rm {artifact.ref}`")
    _allowed(session, artifact.ref)
    from slmkit.ops.pull import restore  # loads huggingface_hub

    return restore(artifact, session.registry, offline=session.offline, progress=session.progress)


def _pull(ref: ModelRef, digest: str, child: Artifact, session: Session) -> Artifact:
    """A checkpoint that the registry has forgotten."""
    from slmkit.recipes import verbs

    _allowed(session, str(ref))
    session.progress.say(f"{child.ref} was made from {ref}: pulling it first")
    found = verbs.pull(ref, session)
    if found.digest != digest:
        raise NotRebuiltError(
            f"{child.ref} was made from other files of {ref.name} than a pull takes: it cannot be made again",
            hint=_instead(child),
        )
    return found


def _allowed(session: Session, ref: str) -> None:
    if not session.may_pull:
        raise NotInRegistryError(f"{ref} is not here any more, and must be pulled", hint="leave out `--no-pull`")


def _made(artifact: Artifact, parents: Sequence[Artifact], session: Session, n_threads: int | None) -> Artifact:
    registry = session.registry
    with registry.locked(artifact.model, session.progress):
        there = registry.find(artifact.model, artifact.variant)
        if there is not None and is_whole(there):  # who had the lock has made it
            return there
        with atomic.staged(artifact.path) as folder:
            made = remake(artifact, parents, folder, session, n_threads=n_threads)
            if [f.sha256 for f in made] != [f.sha256 for f in artifact.files]:
                raise _other(artifact)
            back = replace(artifact, created=now())
            registry.publish(back, folder)
    return back


def _other(artifact: Artifact) -> NotRebuiltError:
    from slmkit.backends.llamacpp import engine

    others = other_tools(artifact, engine.build() if artifact.provenance.action == "quantize" else {})
    because = "; ".join(others) or "by the same tools: was its manifest edited?"
    return NotRebuiltError(
        f"{artifact.ref} was made again and has other bytes than before ({because}); nothing was registered",
        hint=_instead(artifact),
    )


def _instead(artifact: Artifact) -> str:
    """How to have something of that name after all."""
    variant = artifact.variant or ""
    if artifact.provenance.action == "quantize":
        return f"make a new one: `{_quantize(artifact)}`"
    if artifact.provenance.action == "convert":
        return f"make a new one: `slmkit convert {artifact.model} --type {variant.lower()}`"
    return f"forget it: `slmkit rm {artifact.ref}`"


def _quantize(artifact: Artifact) -> str:
    """The command for a quant as its manifest says, with the importance matrix that is there then."""
    parameters = artifact.provenance.parameters
    kind, variant = str(parameters.get("type")), artifact.variant or ""
    spec = QuantizeSpec.of(parameters)
    source = parameters.get("source") if spec.allow_requantize else None
    words = ["slmkit quantize", source or artifact.model]
    if spec.target:
        words += [f"--target-{spec.target.unit} {spec.target.typed}", *(["--imatrix auto"] if spec.imatrix else [])]
    else:
        words += [f"-t {kind}", *([spec.options] if spec.options else [])]
    label = variant.partition("-")[2]
    if label and kind in QUANT_TYPES and variant_name(QUANT_TYPES[kind], spec) != variant:
        words.append(f"--name {label}")
    return " ".join(words)
