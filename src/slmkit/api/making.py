"""Getting and making files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.api.session import Reference, importance, reference, session
from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.progress import SILENT, Progress
from slmkit.core.quant import quant_types
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.target import TargetSpec
from slmkit.registry.store import Registry

if TYPE_CHECKING:
    from slmkit.ops.convert.check import ConvertCheck
    from slmkit.ops.export import ExportReport
    from slmkit.ops.imatrix import ImatrixReport
    from slmkit.ops.merge import MergeReport
    from slmkit.ops.quantize import QuantizeReport
    from slmkit.ops.split import SplitReport
    from slmkit.recipes.get import Got
    from slmkit.recipes.run import RecipeResult


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

    here = session(progress, offline=offline)
    return verbs.pull(reference(ref), here, revision=revision, include=include, exclude=exclude)


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
    return verbs.convert(
        reference(ref), session(progress, may_pull), outtype=outtype, spec=spec, target=path, force=force
    )


def check_convert(
    ref: Reference, *, pre: str | None = None, may_pull: bool = True, progress: Progress = SILENT
) -> ConvertCheck:
    """Whether a checkpoint would convert, to what and how large; no weight is read or downloaded."""
    from slmkit.recipes import foresight

    return foresight.check_convert(reference(ref), session(progress, may_pull), pre=pre)


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
    """Make several types of a model, pulling and converting first where that is missing.

    `spec` has the engine's options; a file that is not made by the defaults is called `TYPE-name`. With `strict_share`
    a type is refused (`VerdictError`) of which a larger share of the parameters would fall back to another. `imatrix`
    is the file of an importance matrix, or `auto` for the model's own, which is collected where there is none.
    """
    from slmkit.recipes import verbs

    return list(
        verbs.quantize(
            reference(ref),
            quant_types(types),
            session(progress, may_pull),
            spec=spec,
            name=name,
            imatrix=importance(imatrix),
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

    here = session(progress, may_pull)
    file: Path | Literal["auto", "newest"] | None = None
    if imatrix is not None:
        file = "auto" if imatrix == "auto" else "newest" if imatrix == "newest" else Path(imatrix)
    return recipe(reference(ref), target, here, name=name, imatrix=file, force=force, n_threads=n_threads)


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
    here = session(progress, may_pull)
    return verbs.imatrix(reference(ref), calibration, here, n_chunks=n_chunks, force=force, n_threads=n_threads)


def export(ref: Reference, folder: str | Path, *, progress: Progress = SILENT) -> ExportReport:
    """Turn a GGUF back into a Hugging Face checkpoint in a new folder."""
    from slmkit.recipes.export import export as made

    return made(reference(ref), Path(folder), session(progress))


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

    source = locate.gguf(reference(ref), Registry(), progress)
    return op(source, Path(prefix), max_bytes=max_bytes, max_tensors=max_tensors, force=force, progress=progress)


def merge(ref: Reference, target: str | Path, *, force: bool = False, progress: Progress = SILENT) -> MergeReport:
    """Put the shards of a GGUF together again, into the file `target`."""
    from slmkit.ops import locate
    from slmkit.ops.merge import merge as op

    return op(locate.gguf(reference(ref), Registry(), progress), Path(target), force=force, progress=progress)


def get(
    ref: Reference, *, may_pull: bool = True, n_threads: int | None = None, progress: Progress = SILENT
) -> list[Got]:
    """Make again what was dropped, with the same bytes, and what it was made from before it."""
    from slmkit.recipes.get import get as run

    return list(run(reference(ref), session(progress, may_pull), n_threads=n_threads))


def run_recipe(path: str | Path, *, may_pull: bool = True, progress: Progress = SILENT) -> RecipeResult:
    """Run a recipe file; what failed is in the result."""
    from slmkit.recipes.run import run
    from slmkit.recipes.schema import load

    return run(load(Path(path)), session(progress, may_pull))
