"""What would become of a reference: nothing is made, no weight is read, and of the Hub's only headers are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import FLOATS, QuantType, canonical
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import (
    HubFileNotFoundError,
    NoNetworkError,
    NotInRegistryError,
    OfflineError,
    SlmkitError,
    UsageError,
)
from slmkit.ops import adopt, corpora, locate
from slmkit.recipes.session import Session
from slmkit.recipes.spared import known_imatrix
from slmkit.recipes.verbs import DEFAULT_FLOAT
from slmkit.registry import imatrices
from slmkit.registry.store import Registry, is_whole

if TYPE_CHECKING:
    from slmkit.core.plan import ModelPlan
    from slmkit.ops.convert.check import ConvertCheck
    from slmkit.ops.convert.unread import Unread
    from slmkit.ops.inspect import Inspection
    from slmkit.ops.plan import PlanSource, Weighing
    from slmkit.ops.remote_gguf import RemoteGguf


def check_convert(ref: ModelRef, session: Session, *, pre: str | None = None) -> ConvertCheck:
    """Whether and to what a checkpoint would convert."""
    from slmkit.ops.convert.artifact import check_spec
    from slmkit.ops.convert.check import ConvertCheck, check  # loads numpy

    check_spec(ConvertSpec(pre=pre))
    ref = locate.expand(ref)
    try:
        with unread(ref, session) as source:
            return check(source, pre=pre, progress=session.progress)
    except HubFileNotFoundError as error:  # a repository without a checkpoint: that is an answer, too
        return ConvertCheck(ref.model, error)


def plan(
    ref: ModelRef,
    session: Session,
    *,
    types: Sequence[QuantType] = (),
    n_ctx: Sequence[int] = (),
    cache_types: Sequence[str] = ("F16",),
    ram_bytes: int | None = None,
    bandwidth_bytes_per_s: float | None = None,
    imatrix: Path | Literal["auto"] | None = None,
) -> ModelPlan:
    """Size, memory and speed of every type (or of `types`) of a checkpoint or GGUF; see `ops.plan`.

    `imatrix` is that with which the types would be made, as for `quantize`: a file, or `auto`, which need not be there
    yet. Without it those that need one are planned with `auto`. Raises `UsageError` for one of another model.
    """
    from slmkit.backends.llamacpp.child import Children, require_engine
    from slmkit.ops.plan import plan as plan_op  # loads numpy
    from slmkit.ops.plan import prepare

    require_engine()  # before anything is asked of the Hub
    children = Children()
    try:
        prepare(children)
        source = _plan_source(locate.expand(ref), session)
        return plan_op(
            source,
            types,
            _weighing(imatrix, source, session),
            session.progress,
            n_ctx=n_ctx,
            cache_types=cache_types,
            ram_bytes=ram_bytes,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            children=children,
        )
    finally:
        children.kill()


def inspect(ref: ModelRef, session: Session) -> Inspection:
    """What the GGUF of a reference truly is; of a checkpoint, what the float type that it names (by default F16) would
    be. Of the Hub's only headers are asked for, and no engine is needed.
    """
    from slmkit.ops.inspect import inspect as inspect_op

    ref = locate.expand(ref)
    if _is_unmade(ref, session.registry):
        try:
            return _inspect_unmade(ref, session)
        except HubFileNotFoundError as error:  # no checkpoint
            return _inspect_remote(ref, session, error)
    try:
        path = locate.gguf(ref, session.registry, session.progress)
    except NotInRegistryError as missing:
        return _inspect_remote(ref, session, missing)
    return inspect_op(path, ref.variant)


def _inspect_unmade(ref: ModelRef, session: Session) -> Inspection:
    from slmkit.formats.gguf.hollow import Hollow
    from slmkit.ops.inspect import inspect_unmade

    outtype = canonical(ref.variant or DEFAULT_FLOAT)
    with unread(ref, session) as source:
        found = source.plan(outtype=outtype.lower(), progress=session.progress)
    return inspect_unmade(
        Hollow(found.metadata, found.entries()),
        f"{source.model_id.rpartition('/')[2]}-{outtype}.gguf",
        source.ref,
        known=found.generated,
        remarks=found.remarks,
    )


def _inspect_remote(ref: ModelRef, session: Session, otherwise: SlmkitError) -> Inspection:
    from slmkit.ops.inspect import ROPE_FACTORS
    from slmkit.ops.inspect import inspect as inspect_op

    with _remote(ref, session, otherwise, verb="inspect", wanted=ROPE_FACTORS) as gguf:
        return replace(inspect_op(gguf.path), path=None, hub=gguf.ref)


def _is_unmade(ref: ModelRef, registry: Registry) -> bool:
    """Whether it names a checkpoint, or what is made of one by converting and is not here."""
    if ref.kind == "path":
        return Path(ref.name).expanduser().is_dir()
    if ref.variant is None:
        return all(artifact.is_checkpoint for artifact in registry.artifacts(ref.model))
    is_known = registry.find(ref.model, ref.variant) or locate.dropped_of(ref, registry)
    return canonical(ref.variant) in FLOATS and not is_known


@contextmanager
def unread(ref: ModelRef, session: Session) -> Iterator[Unread]:
    """The checkpoint that a reference (no alias) names: the folder, the registered one, or the Hub's."""
    from slmkit.ops.convert.unread import Unread

    if ref.kind == "path":
        folder = Path(ref.name).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"no such folder: {folder}", hint="a checkpoint is a folder with config.json in it")
        yield Unread(str(ref), folder, adopt.local_model(folder.name))
        return
    known = session.registry.find(ref.model, None)
    if known and is_whole(known):
        yield Unread(known.ref, known.root, known.repo_id, known.provenance.commit)
        return
    if not session.may_pull or ref.name.startswith(f"{adopt.LOCAL_ORG}/"):
        raise NotInRegistryError(f"no checkpoint of {ref.model} here", hint=f"get it: `slmkit pull {ref.model}`")
    from slmkit.ops.convert.remote import open_hub  # loads huggingface_hub

    with open_hub(ref.name, ref.revision, offline=session.offline, progress=session.progress) as source:
        yield source


@contextmanager
def _remote(
    ref: ModelRef, session: Session, otherwise: SlmkitError, *, verb: str, wanted: tuple[str, ...] = ()
) -> Iterator[RemoteGguf]:
    """The Hub's GGUF that a reference (no alias) names. Raises `otherwise` where the Hub cannot be asked for it."""
    is_local = ref.kind == "path" or ref.name.startswith(f"{adopt.LOCAL_ORG}/")
    if is_local or not session.may_pull or (ref.variant and locate.dropped_of(ref, session.registry)):
        raise otherwise
    from slmkit.ops.remote_gguf import open_remote  # loads huggingface_hub

    opened = open_remote(
        ref,
        verb=verb,
        wanted=wanted,
        otherwise=otherwise if isinstance(otherwise, HubFileNotFoundError) else None,
        offline=session.offline,
        progress=session.progress,
    )
    with ExitStack() as stack:
        try:
            gguf = stack.enter_context(opened)
        except (OfflineError, NoNetworkError) as error:
            raise type(otherwise)(f"{otherwise.message}: {error.message}", hint=otherwise.hint) from error
        yield gguf


def _of_a_path(path: Path, session: Session) -> Artifact:
    """The GGUF at it. Its digest takes reading it, and is only there where an importance matrix could be its own."""
    found = adopt.describe(path, session.progress, hashed=False)
    return adopt.describe(path, session.progress) if imatrices.every(session.registry, found.model) else found


def _weighing(wanted: Path | Literal["auto"] | None, source: PlanSource, session: Session) -> Weighing:
    """By `wanted`, or else by the matrix that `auto` takes: the newest of the model, or that still to be collected."""
    from slmkit.formats.imatrix import origin, origin_of, read
    from slmkit.ops.imatrix import label, name_of
    from slmkit.ops.plan import Weighing
    from slmkit.ops.quantize import importance

    if wanted and not source.is_float:
        raise UsageError(
            f"{source.ref} is quantized already: no other type is made of it", hint="leave out `--imatrix`"
        )
    file = known_imatrix(wanted or "auto", source.artifact, session.registry)
    if file is None:
        text = corpora.corpus()
        name = name_of(source.artifact, text, session.registry) if source.artifact else label(text)
        said = origin_of(f"{name}.gguf", [text.name], n_entries=1, n_chunks=1)
        return Weighing(text.name, said, everywhere=wanted is not None)
    spec = QuantizeSpec(imatrix=file)
    tensors = source.made[source.base].tensors
    importance.check(source.ref, spec, tensors, session.progress)
    said = origin(file.path, read(file.path))
    return Weighing(file.name, said, everywhere=wanted is not None, unmet=importance.Need(spec, tensors).unmet)


def _plan_source(ref: ModelRef, session: Session) -> PlanSource:
    try:
        return _gguf(ref, session) or _checkpoint(ref, session)
    except (HubFileNotFoundError, NotInRegistryError) as error:
        from slmkit.formats.gguf.hollow import read_hollow
        from slmkit.ops.plan import PlanSource

        with _remote(ref, session, error, verb="plan") as gguf:
            return PlanSource(gguf.ref, {gguf.variant: read_hollow(gguf.path)}, gguf.variant)


def _checkpoint(ref: ModelRef, session: Session) -> PlanSource:
    from slmkit.formats.gguf.hollow import Hollow
    from slmkit.ops.plan import PlanSource

    with unread(ref, session) as source:
        here = locate.best_float(source.model_id if ref.kind == "path" else ref.model, None, session.registry)
        base = here.variant if here and here.variant else DEFAULT_FLOAT
        found = source.plan(outtype=base.lower(), progress=session.progress)
    made = {name: Hollow(found.metadata, found.entries(name)) for name in FLOATS}
    return PlanSource(source.ref, made, base, found.remarks, here)


def _gguf(ref: ModelRef, session: Session) -> PlanSource | None:
    """The GGUF that a reference names."""
    from slmkit.formats.gguf.hollow import read_hollow
    from slmkit.ops.plan import PlanSource

    if ref.kind == "path":
        path = Path(ref.name).expanduser().absolute()
        if path.suffix.lower() != ".gguf":
            return None
        if not path.is_file():
            raise UsageError(f"no such file: {path}", hint="for a model on the Hub type `org/name`")
        variant = adopt.variant_of(path)
        return PlanSource(str(ref), {variant: read_hollow(path)}, variant, artifact=_of_a_path(path, session))
    if ref.variant is None:
        found = _instead_of_a_checkpoint(ref.model, session.registry)
    else:
        found = locate.ggufs(ref, session.registry, session.progress)[0]
    if found is None or found.variant is None:
        return None
    return PlanSource(found.ref, {found.variant: read_hollow(found.path)}, found.variant, artifact=found)


def _instead_of_a_checkpoint(model: str, registry: Registry) -> Artifact | None:
    """Where a model came here as GGUF: its most exact float file, or the only one there is."""
    known = registry.find(model, None)
    if known and is_whole(known):
        return None
    every = [artifact for artifact in registry.artifacts(model) if not artifact.is_checkpoint]
    return locate.best_float(model, None, registry) or (every[0] if len(every) == 1 else None)
