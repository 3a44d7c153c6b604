"""Each verb, with what must come before it: quantizing converts first, converting pulls first, and both say so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import FLOATS, QuantType
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import ChangedError, EngineMissingError, FormatError, NotInRegistryError, SlmkitError, UsageError
from slmkit.ops import adopt, locate
from slmkit.recipes.session import Session
from slmkit.recipes.spared import known_imatrix, spared
from slmkit.registry import imatrices
from slmkit.registry.lineage import state
from slmkit.registry.store import is_whole

if TYPE_CHECKING:
    from slmkit.core.bench import BenchRun, BenchSpec
    from slmkit.core.imatrix import Calibration
    from slmkit.ops.bench import Effort
    from slmkit.ops.imatrix import ImatrixReport
    from slmkit.ops.imatrix_statistics import ImatrixStatistics
    from slmkit.ops.quantize import QuantizeReport

DEFAULT_FLOAT = "F16"
"""What is made when there is nothing to quantize from: the baseline that everybody compares with."""


def pull(
    ref: ModelRef,
    session: Session,
    *,
    revision: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    inspect: Callable[[Path], None] | None = None,
) -> Artifact:
    """Get a checkpoint, or with `ref.variant` one quant of a GGUF repository, from the Hub."""
    from slmkit.ops.pull import pull as pull_op  # loads huggingface_hub

    ref = locate.expand(ref)
    if ref.kind == "path":
        raise UsageError(f"{ref} is a local path", hint=f"register it: `slmkit adopt {ref}`")
    return pull_op(
        ref,
        session.registry,
        revision=revision,
        include=include,
        exclude=exclude,
        offline=session.offline,
        progress=session.progress,
        inspect=inspect,
    )


def checkpoint(
    ref: ModelRef, session: Session, *, inspect: Callable[[Path], None] | None = None, hashed: bool = True
) -> Artifact:
    """The checkpoint of a reference; pulled when it is not here, pulling is allowed and `inspect` likes its config.

    Without `hashed` a local folder comes without its list of files, which takes a moment for each GB.
    """
    found = locate.checkpoint(ref, session.registry, session.progress, hashed=hashed)
    if found is not None:
        return found
    ref = locate.expand(ref)
    if ref.kind == "path":
        raise UsageError(
            f"{ref} is a GGUF: a checkpoint is wanted", hint=f"make one: `slmkit export {ref} --to hf DIR`"
        )
    if not session.may_pull:
        raise NotInRegistryError(f"no checkpoint of {ref.model} here", hint=f"get it: `slmkit pull {ref.model}`")
    return _pull_first(ref.with_variant(None), session, inspect)


def convert(
    ref: ModelRef,
    session: Session,
    *,
    outtype: str = "f16",
    spec: ConvertSpec | None = None,
    target: Path | None = None,
    force: bool = False,
) -> Artifact:
    """Turn a checkpoint into a GGUF: registered, or written to `target` and only described.

    Doing it again does nothing, unless the checkpoint has changed, `spec` asks for something else, or `force`.
    """
    from slmkit.ops.convert.artifact import convert_artifact  # loads numpy

    spec = spec or ConvertSpec()
    source = _convertible(ref, session, spec, hashed=target is None)
    return convert_artifact(
        source, session.registry, session.progress, outtype=outtype, spec=spec, target=target, force=force
    )


def _convertible(ref: ModelRef, session: Session, spec: ConvertSpec, *, hashed: bool = True) -> Artifact:
    """The checkpoint, pulled first where that is missing and can be converted."""
    from slmkit.ops.convert import check_supported  # loads numpy
    from slmkit.ops.convert.artifact import check_spec

    check_spec(spec)
    inspect = check_supported if spec.converter == "slmkit" else None
    return checkpoint(ref, session, inspect=inspect, hashed=hashed)


def quantize(
    ref: ModelRef,
    types: Sequence[QuantType],
    session: Session,
    *,
    spec: QuantizeSpec | None = None,
    name: str | None = None,
    strict_share: float | None = None,
    imatrix: Path | Literal["auto"] | None = None,
    convert_spec: ConvertSpec | None = None,
    force: bool = False,
    may_replace: bool = False,
    n_threads: int | None = None,
    on_failure: Callable[[QuantType, SlmkitError], None] | None = None,
) -> Generator[QuantizeReport]:
    """Make each type as `spec` says, several at the same time, pulling and converting (as `convert_spec` says) first
    where that is missing and there is anything to make, of which not all would be refused; yields them in the order of
    `types`. See `ops.quantize` for the rest.

    `imatrix` is the file of an importance matrix, or `auto` for the newest of the source; it is collected first where
    there is none. Float types do without.

    With `on_failure` a type that cannot be made is told there, and the others still are.
    """
    from slmkit.ops import quantize as quantize_op
    from slmkit.recipes import beforehand

    if not types:
        raise UsageError("no type given", hint="say which: `slmkit quantize REF -t Q4_0`")
    spec = spec or QuantizeSpec()
    if not force and strict_share is None:
        here = spared(ref, types, session, spec=spec, name=name, imatrix=imatrix, convert_spec=convert_spec)
        if here:
            return (report for report in here)
    source = _float_here(ref, session, convert_spec)
    if source is None:
        refused = beforehand.refused(
            locate.expand(ref),
            types,
            session,
            spec=spec,
            strict_share=strict_share,
            imatrix=imatrix,
            convert_spec=convert_spec or ConvertSpec(),
        )
        if len(refused) == len(set(types)):
            return beforehand.told(refused, on_failure)
        source = _new_float(ref, session, convert_spec)
    floats: dict[QuantType, QuantizeReport | None] = {}
    for quant in types if not spec.parameters and name is None else ():
        if quant.name == source.variant:
            floats[quant] = quantize_op.QuantizeReport(quant, source, source, fresh=False)
        elif quant.is_float and not _is_file(ref):
            floats[quant] = _as_float(ref, source, quant, session, convert_spec, force, on_failure)
    others = [quant for quant in types if quant not in floats]
    if imatrix and others:
        if known_imatrix(imatrix, source, session.registry) is None:  # collecting takes minutes
            refused = quantize_op.refused(source, others, spec, strict_share=strict_share, imatrix_comes=True)
            if len(refused) == len(others):
                return _in_order(types, floats, beforehand.told(refused, on_failure))
        spec = replace(spec, imatrix=imatrix_file(imatrix, source, session, n_threads))
    made = quantize_op.quantize(
        source,
        others,
        session.registry,
        session.progress,
        spec=spec,
        name=name,
        strict_share=strict_share,
        force=force,
        may_replace=may_replace,
        n_threads=n_threads,
        on_failure=on_failure,
    )
    return _in_order(types, floats, made)


def imatrix_file(
    wanted: Path | Literal["auto"], source: Artifact, session: Session, n_threads: int | None
) -> ImatrixFile:
    """That file, or the newest of `source`; it is collected where there is none."""
    from slmkit.ops import corpora
    from slmkit.ops import imatrix as imatrix_op

    known = known_imatrix(wanted, source, session.registry)
    if known is not None:
        return known
    session.progress.say(f"no importance matrix of {source.ref} yet: collecting it first")
    text = corpora.corpus()
    found = imatrix_op.imatrix(source, text, session.registry, session.progress, n_threads=n_threads).artifact
    return ImatrixFile(found.variant or "", found.path, found.digest)


def _as_float(
    ref: ModelRef,
    source: Artifact,
    quant: QuantType,
    session: Session,
    spec: ConvertSpec | None,
    force: bool,
    on_failure: Callable[[QuantType, SlmkitError], None] | None,
) -> QuantizeReport | None:
    """A float type: the converter makes it, and where no checkpoint is here the engine, from `source`; nothing when it
    could not and `on_failure` was told.
    """
    from slmkit.ops import quantize as quantize_op

    registry, progress = session.registry, session.progress
    before = registry.find(source.model, quant.name)
    try:
        if locate.checkpoint(ref, registry, progress) is None:
            if before and is_whole(before) and before.provenance.action != "quantize":  # nothing makes it again
                return quantize_op.QuantizeReport(quant, source, before, fresh=False)
            (report,) = quantize_op.quantize(source, [quant], registry, progress, force=force)
            return report
        made = convert(ref, session, outtype=quant.name.lower(), spec=spec, force=force)
    except EngineMissingError:
        raise
    except SlmkitError as error:
        if on_failure is None:
            raise
        on_failure(quant, error)
        return None
    return quantize_op.QuantizeReport(quant, source, made, fresh=made != before)


def _in_order(
    types: Sequence[QuantType], floats: Mapping[QuantType, QuantizeReport | None], made: Generator[QuantizeReport]
) -> Generator[QuantizeReport]:
    """Both kinds as `types` has them; `made` is in that order already, without those that failed."""
    with closing(made):
        next_made: QuantizeReport | None = None
        for quant in types:
            if quant in floats:
                if report := floats[quant]:
                    yield report
                continue
            next_made = next_made or next(made, None)
            if next_made and next_made.quant == quant:
                yield next_made
                next_made = None


def float_source(ref: ModelRef, session: Session, spec: ConvertSpec | None = None) -> Artifact:
    """The float GGUF to quantize from: the one named, the most exact that is here, or a new F16."""
    return _float_here(ref, session, spec) or _new_float(ref, session, spec)


def _new_float(ref: ModelRef, session: Session, spec: ConvertSpec | None) -> Artifact:
    from slmkit.ops.convert.artifact import convert_artifact  # loads numpy

    expanded = locate.expand(ref)
    spec = spec or ConvertSpec()
    try:
        source = _convertible(expanded, session, spec)
    except NotInRegistryError as missing:
        raise _damaged_float(expanded.model, session) or missing from missing
    session.progress.say(f"no {DEFAULT_FLOAT} of {source.model} yet: converting it first")
    return convert_artifact(source, session.registry, session.progress, outtype=DEFAULT_FLOAT.lower(), spec=spec)


def _damaged_float(model: str, session: Session) -> ChangedError | None:
    """The error for a float file that would have been the source, and is not what was registered."""
    found = next((a for name in FLOATS if (a := session.registry.find(model, name)) and not is_whole(a)), None)
    if found is None:
        return None
    how = "gone" if state(found) == "gone" else "here, but cut short or changed"
    return ChangedError(
        f"{found.ref} is {how}: {found.path}",
        hint=f"`slmkit verify {found.ref}` shows what is wrong; make or get it again",
    )


def _float_here(ref: ModelRef, session: Session, spec: ConvertSpec | None) -> Artifact | None:
    """The float GGUF to quantize from, when none has to be made."""
    expanded = locate.expand(ref)
    if _is_file(expanded) or expanded.variant is not None:
        return _one_gguf(expanded, session)
    source = locate.checkpoint(expanded, session.registry, session.progress)
    found = locate.best_float(source.model if source else expanded.model, source, session.registry)
    return found if found is not None and (spec is None or spec.is_met_by(found)) else None


def imatrix(
    ref: ModelRef,
    calibration: Calibration,
    session: Session,
    *,
    n_chunks: int | None = None,
    force: bool = False,
    n_threads: int | None = None,
) -> ImatrixReport:
    """Collect the importance matrix of the GGUF that a reference names, by default the model's float file."""
    from slmkit.ops import imatrix as imatrix_op

    source = float_source(ref, session)
    registry, progress = session.registry, session.progress
    return imatrix_op.imatrix(
        source, calibration, registry, progress, n_chunks=n_chunks, force=force, n_threads=n_threads
    )


def imatrix_statistics(ref: ModelRef, session: Session, calibration: Calibration | None = None) -> ImatrixStatistics:
    """What is in the model's newest importance matrix, or in that of a text, or in the file that `ref` names."""
    from slmkit.ops.imatrix_statistics import read_statistics  # loads numpy

    ref = locate.expand(ref)
    if ref.kind == "path" and imatrices.is_imatrix(Path(ref.name)):
        return read_statistics(Path(ref.name))
    is_path = ref.kind == "path"
    model = adopt.describe(Path(ref.name), session.progress, hashed=False).model if is_path else ref.model
    found = imatrices.every(session.registry, model)
    if calibration is not None:
        found = [a for a in found if a.provenance.parameters["text_sha256"] == calibration.sha256]
    if not found:
        raise NotInRegistryError(f"no importance matrix of {model} here", hint=f"make it: `slmkit imatrix {ref}`")
    return read_statistics(found[0].path, found[0].provenance.parameters["source"])


def bench(
    refs: Sequence[ModelRef],
    specs: Sequence[BenchSpec],
    session: Session,
    effort: Effort | None = None,
    *,
    resume: bool = False,
    min_ram: bool = False,
    best_threads: bool = False,
) -> BenchRun:
    """Measure every GGUF that the references name, under each spec; a file that is damaged becomes a row.

    With `best_threads` the number of threads is searched for first, with `min_ram` the least memory at last.
    """
    from slmkit.core.bench import BenchRow, Failure
    from slmkit.ops import bench as bench_op

    found: dict[str, Artifact] = {}
    unreadable: list[BenchRow] = []
    for ref in refs:
        try:
            found |= {artifact.digest: artifact for artifact in locate.ggufs(ref, session.registry, session.progress)}
        except (FormatError, ChangedError) as error:
            if len(refs) == 1:
                raise
            failure = Failure.of(error)
            unreadable.append(BenchRow(str(ref), "", 0, specs[0], failure=failure))
    return bench_op.bench_and_search(
        list(found.values()),
        specs,
        session.registry,
        session.progress,
        effort or bench_op.Effort(),
        best_threads=best_threads,
        min_ram=min_ram,
        resume=resume,
        unreadable=unreadable,
    )


def artifacts(refs: Sequence[ModelRef], session: Session) -> list[Artifact]:
    """Every GGUF that the references name, each once, in the order they were named."""
    found = [a for ref in refs for a in locate.ggufs(ref, session.registry, session.progress)]
    return list({a.digest: a for a in found}.values())


def _one_gguf(ref: ModelRef, session: Session) -> Artifact:
    known = session.registry.find(ref.model, ref.variant)
    if ref.kind == "hub" and session.may_pull and not (known and is_whole(known)):
        return _pull_first(ref, session)
    return locate.ggufs(ref, session.registry, session.progress)[0]


def _pull_first(ref: ModelRef, session: Session, inspect: Callable[[Path], None] | None = None) -> Artifact:
    if ref.name.startswith(f"{adopt.LOCAL_ORG}/"):
        raise NotInRegistryError(f"no {ref} here", hint="give its path, or register it: `slmkit adopt PATH`")
    session.progress.say(f"{ref} is not here yet: pulling it first")
    return pull(ref, session, inspect=inspect)


def _is_file(ref: ModelRef) -> bool:
    return ref.kind == "path" and Path(ref.name).suffix.lower() == ".gguf"
