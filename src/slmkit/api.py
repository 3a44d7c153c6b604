"""The verbs for Python programs: `import slmkit; slmkit.quantize("smollm2-135m", ["Q4_0"])`.

A model is a reference as on the command line (text or `ModelRef`). Nothing is printed; pass a `progress` to listen.
Every function raises from the tree in `slmkit.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRun, BenchSpec
from slmkit.core.check import Check, Limits
from slmkit.core.compare import Comparison
from slmkit.core.convert import ConvertSpec
from slmkit.core.plan import ModelPlan
from slmkit.core.progress import SILENT, Progress
from slmkit.core.quant import quant_types
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.registry.store import Registry, Removal

if TYPE_CHECKING:
    from datetime import date

    from slmkit.core.diff import Diff
    from slmkit.core.history import Listed
    from slmkit.ops.convert.check import ConvertCheck
    from slmkit.ops.export import ExportReport
    from slmkit.ops.imatrix import ImatrixReport
    from slmkit.ops.inspect import Inspection
    from slmkit.ops.merge import MergeReport
    from slmkit.ops.quantize import QuantizeReport
    from slmkit.ops.runs import Imported
    from slmkit.ops.show import Details
    from slmkit.ops.split import SplitReport
    from slmkit.recipes.get import Got
    from slmkit.recipes.rederive import Rederived
    from slmkit.recipes.run import RecipeResult
    from slmkit.recipes.verbs import Session
    from slmkit.registry.garbage import Freed
    from slmkit.registry.lineage import Lineage
    from slmkit.registry.verify import Damage

Reference = str | ModelRef


def pull(
    ref: Reference,
    *,
    revision: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    offline: bool = False,
    progress: Progress = SILENT,
) -> Artifact:
    """Get a checkpoint, or one quant of a GGUF repository, from the Hub."""
    from slmkit.recipes import verbs

    session = _session(progress, offline=offline)
    return verbs.pull(_ref(ref), session, revision=revision, include=include, exclude=exclude)


def adopt(path: str | Path, *, progress: Progress = SILENT) -> Artifact:
    """Take a local GGUF or checkpoint folder into the registry by link."""
    from slmkit.ops import adopt as op

    return op.adopt(Path(path), Registry(), progress)


def convert(
    ref: Reference,
    *,
    outtype: str = "f16",
    spec: ConvertSpec | None = None,
    target: str | Path | None = None,
    may_pull: bool = True,
    force: bool = False,
    progress: Progress = SILENT,
) -> Artifact:
    """Turn a checkpoint into a GGUF (`f16`, `bf16`, `f32`, `q8_0`, `tq1_0`, `tq2_0`, `auto`), in the registry or at
    `target`; `spec` has the rest: shards, verification, llama.cpp's own converter.
    """
    from slmkit.recipes import verbs

    path = None if target is None else Path(target)
    return verbs.convert(_ref(ref), _session(progress, may_pull), outtype=outtype, spec=spec, target=path, force=force)


def check_convert(
    ref: Reference, *, pre: str | None = None, may_pull: bool = True, progress: Progress = SILENT
) -> ConvertCheck:
    """Whether a checkpoint would convert, to what and how large; no weight is read or downloaded."""
    from slmkit.recipes import foresight

    return foresight.check_convert(_ref(ref), _session(progress, may_pull), pre=pre)


def plan(
    ref: Reference,
    types: Sequence[str] = (),
    *,
    n_ctx: Sequence[int] = (),
    cache_types: Sequence[str] = ("F16",),
    ram_bytes: int | None = None,
    may_pull: bool = True,
    progress: Progress = SILENT,
) -> ModelPlan:
    """Size, memory and speed (an estimate) of every type, or of `types`; no weight is read or downloaded."""
    from slmkit.recipes import foresight

    return foresight.plan(
        _ref(ref),
        _session(progress, may_pull),
        types=quant_types(types),
        n_ctx=n_ctx,
        cache_types=cache_types,
        ram_bytes=ram_bytes,
    )


def quantize(
    ref: Reference,
    types: Sequence[str],
    *,
    spec: QuantizeSpec | None = None,
    name: str | None = None,
    imatrix: str | Path | None = None,
    strict_share: float | None = None,
    may_pull: bool = True,
    force: bool = False,
    n_threads: int | None = None,
    progress: Progress = SILENT,
) -> list[QuantizeReport]:
    """Make several types of a model, several at the same time, pulling and converting first where that is missing.

    `spec` has the engine's options; a file that is not made by the defaults is called `TYPE-name`. With `strict_share`
    a type is refused (`VerdictError`) of which a larger share of the parameters would fall back to another. `imatrix`
    is the file of an importance matrix, or `auto` for the model's own, which is collected where there is none.
    """
    from slmkit.recipes import verbs

    return list(
        verbs.quantize(
            _ref(ref),
            quant_types(types),
            _session(progress, may_pull),
            spec=spec,
            name=name,
            imatrix="auto" if imatrix == "auto" else Path(imatrix) if imatrix else None,
            strict_share=strict_share,
            force=force,
            n_threads=n_threads,
        )
    )


def quantize_to_target(
    ref: Reference,
    target: TargetSpec,
    *,
    name: str | None = None,
    imatrix: str | Path | None = "newest",
    may_pull: bool = True,
    force: bool = False,
    n_threads: int | None = None,
    progress: Progress = SILENT,
) -> QuantizeReport:
    """Make the best mix of types for a size of file, bits per weight or a reduction: `TargetSpec("bpw", 4.5)`.

    `imatrix` is a file, `auto` (the source's newest, collected where it has none), `newest` (used where there is one).
    """
    from slmkit.recipes.target import quantize_to_target as recipe

    session = _session(progress, may_pull)
    file: Path | Literal["auto", "newest"] | None = None
    if imatrix is not None:
        file = "auto" if imatrix == "auto" else "newest" if imatrix == "newest" else Path(imatrix)
    return recipe(_ref(ref), target, session, name=name, imatrix=file, force=force, n_threads=n_threads)


def imatrix(
    ref: Reference,
    *,
    text: str | Path | None = None,
    corpus: str | None = None,
    n_chunks: int | None = None,
    may_pull: bool = True,
    force: bool = False,
    n_threads: int | None = None,
    progress: Progress = SILENT,
) -> ImatrixReport:
    """Collect a model's importance matrix on a text file or on one of slmkit's corpora."""
    from slmkit.ops import corpora
    from slmkit.recipes import verbs

    calibration = corpora.text_file(Path(text)) if text else corpora.corpus(corpus or corpora.DEFAULT)
    session = _session(progress, may_pull)
    return verbs.imatrix(_ref(ref), calibration, session, n_chunks=n_chunks, force=force, n_threads=n_threads)


def export(ref: Reference, folder: str | Path, *, progress: Progress = SILENT) -> ExportReport:
    """Turn a GGUF back into a Hugging Face checkpoint in a new folder."""
    from slmkit.recipes import verbs

    return verbs.export(_ref(ref), Path(folder), _session(progress))


def split(
    ref: Reference,
    prefix: str | Path,
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> SplitReport:
    """Write a GGUF as shards `PREFIX-00001-of-00003.gguf` and so on, of so many bytes of weights or tensors."""
    from slmkit.ops import locate
    from slmkit.ops.split import split as op

    source = locate.gguf(_ref(ref), Registry(), progress)
    return op(source, Path(prefix), max_bytes=max_bytes, max_tensors=max_tensors, force=force, progress=progress)


def merge(ref: Reference, target: str | Path, *, force: bool = False, progress: Progress = SILENT) -> MergeReport:
    """Put the shards of a GGUF together again, into the file `target`."""
    from slmkit.ops import locate
    from slmkit.ops.merge import merge as op

    return op(locate.gguf(_ref(ref), Registry(), progress), Path(target), force=force, progress=progress)


def bench(*refs: Reference, specs: Sequence[BenchSpec] = (), progress: Progress = SILENT) -> BenchRun:
    """Measure speed, time to first token and memory; rows that failed carry their reason."""
    from slmkit.recipes import verbs

    return verbs.bench([_ref(r) for r in refs], specs or [BenchSpec()], _session(progress))


def check(*refs: Reference, baseline: BenchRun, limits: Limits | None = None, progress: Progress = SILENT) -> Check:
    """Measure what a baseline has, until it is certain whether it became slower or larger, or that it did not."""
    from slmkit.recipes.check import check as recipe

    return recipe([_ref(ref) for ref in refs], baseline, limits or Limits(), _session(progress))


def compare(*refs: Reference, progress: Progress = SILENT) -> Comparison:
    """One table from what is made and measured already."""
    from slmkit.ops import compare as op
    from slmkit.recipes import verbs

    return op.compare(verbs.artifacts([_ref(r) for r in refs], _session(progress)), Registry())


def list_runs(
    *,
    model: str | None = None,
    quant: str | None = None,
    host: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> list[Listed]:
    """The runs that were kept, the newest first, with their rows that are looked for; damaged files are passed over."""
    from slmkit.core.history import Wanted
    from slmkit.ops import runs as op

    return op.find(Wanted(model, quant, host, since, until), Registry().home)[0]


def import_runs(*paths: str | Path) -> list[Imported]:
    """Keep the runs in files of `slmkit runs export`, `slmkit bench --json` or llama-bench: all or none."""
    from slmkit.ops import runs as op

    return op.bring([Path(path) for path in paths], Registry().home)


def diff(a: Reference, b: Reference, *, progress: Progress = SILENT) -> Diff:
    """What one GGUF has otherwise than another: tensors with their errors, metadata, tokenizer, chat template."""
    from slmkit.ops import locate
    from slmkit.ops.diff import diff as op

    one, two = (locate.gguf(_ref(ref), Registry(), progress) for ref in (a, b))
    return op(one, two, progress=progress)


def inspect(ref: Reference, *, may_pull: bool = True, progress: Progress = SILENT) -> Inspection:
    """What a GGUF truly is: types by share, context, tokenizer, chat template, and what is wrong with them.

    Of a checkpoint, here or on the Hub, what it would be converted to; no weight is read or downloaded.
    """
    from slmkit.recipes import foresight

    return foresight.inspect(_ref(ref), _session(progress, may_pull))


def list_models() -> list[Artifact]:
    """Everything in the registry."""
    return Registry().artifacts()


def show(ref: Reference, *, progress: Progress = SILENT) -> list[Details]:
    """What is known about a model: one entry for each artifact that the reference covers."""
    from slmkit.ops import locate
    from slmkit.ops.show import show as op

    return [op(artifact) for artifact in locate.any_of(_ref(ref), Registry(), progress)]


def verify(ref: Reference | None = None, *, progress: Progress = SILENT) -> list[Damage]:
    """Read all files again; an empty list means that every one is sound."""
    from slmkit.ops import locate
    from slmkit.registry.verify import verify as check

    registry = Registry()
    artifacts = registry.artifacts() if ref is None else locate.everything(_ref(ref), registry)
    return [damage for artifact in artifacts for damage in check(artifact, progress)]


def rm(ref: Reference, *, dry_run: bool = False) -> Removal:
    """Delete a variant or a whole model; with `dry_run` only say what that would be."""
    from slmkit.ops import locate

    registry = Registry()
    removal = locate.removal(_ref(ref), registry)
    if not dry_run:
        registry.remove(removal)
    return removal


def lineage(*refs: Reference) -> Lineage:
    """What models were made from and what was made from them, as nodes and edges by digest."""
    from slmkit.ops import locate
    from slmkit.registry.lineage import Family

    return Family(Registry()).lineage([a for ref in refs for a in locate.remembered(_ref(ref), Registry())])


def rederive(ref: Reference, *, n_threads: int | None = None, progress: Progress = SILENT) -> list[Rederived]:
    """Make what `ref` names again in a temporary place, and say of each whether it has the same bytes."""
    from slmkit.ops import locate
    from slmkit.recipes.rederive import rederive as run

    session = _session(progress)
    return list(run(locate.everything(_ref(ref), session.registry), session, n_threads=n_threads))


def gc(*, dry_run: bool = False, progress: Progress = SILENT) -> Freed:
    """Free what nothing refers to; with `dry_run` only say what that would be."""
    from slmkit.ops import gc as op
    from slmkit.registry.garbage import Freed

    registry = Registry()
    plan = op.plan(registry, progress)
    return Freed(tuple(plan), ()) if dry_run else op.free(registry, plan)


def drop(*refs: Reference) -> list[Artifact]:
    """Delete the files of these GGUFs that can be made again bit by bit, and keep their recipes for `get`.

    Gives those that went: what cannot be made again, or is being worked on, stays.
    """
    from slmkit.backends.llamacpp import engine
    from slmkit.ops import locate
    from slmkit.recipes import rebuildable

    registry = Registry()
    named = [a for ref in refs for a in locate.everything(_ref(ref), registry)]
    found = rebuildable.candidates(named, registry, engine.build)
    return rebuildable.drop([c.artifact for c in found if c.why_not is None], registry)[0]


def get(
    ref: Reference, *, may_pull: bool = True, n_threads: int | None = None, progress: Progress = SILENT
) -> list[Got]:
    """Make again what was dropped, with the same bytes, and what it was made from before it."""
    from slmkit.recipes.get import get as run

    return list(run(_ref(ref), _session(progress, may_pull), n_threads=n_threads))


def run_recipe(path: str | Path, *, may_pull: bool = True, progress: Progress = SILENT) -> RecipeResult:
    """Run a recipe file; what failed is in the result."""
    from slmkit.recipes.run import run
    from slmkit.recipes.schema import load

    return run(load(Path(path)), _session(progress, may_pull))


def _ref(ref: Reference) -> ModelRef:
    return ref if isinstance(ref, ModelRef) else ModelRef.parse(ref)


def _session(progress: Progress, may_pull: bool = True, *, offline: bool = False) -> Session:
    from slmkit.recipes.verbs import Session

    return Session(Registry(), progress, may_pull=may_pull, offline=offline)
