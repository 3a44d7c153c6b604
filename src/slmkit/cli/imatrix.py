"""`slmkit imatrix`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import UsageError

if TYPE_CHECKING:
    from slmkit.core.artifact import Artifact
    from slmkit.ops.imatrix_statistics import ImatrixStatistics


def imatrix(
    ref: options.Ref,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="Collect on this text (UTF-8) instead of a corpus.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", metavar="NAME", help="Collect on this text of slmkit's.  [default: mixed]")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option("--chunks", min=1, metavar="N", help="At most so many chunks of 512 tokens.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the statistics for each tensor of what is here.")] = False,
    threads: options.Threads = None,
    no_pull: options.NoPull = False,
    force: options.Force = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find out which weights of a model matter, for `slmkit quantize --imatrix`: the importance matrix.

    A text is run through the model until nothing changes any more. It is what llama-imatrix makes, and llama-quantize
    can read it. An interrupted run goes on where it stopped. With `--show`, REF may be the file of such a matrix.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.ops import corpora
    from slmkit.recipes import verbs
    from slmkit.report.tables import imatrix_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    if text and corpus:
        raise UsageError("`--text` and `--corpus` exclude each other")
    idle = {"--chunks": chunks, "--threads": threads, "--force": force} if show else {"--format": form}
    if name := next((name for name, value in idle.items() if value), None):
        what = "collects nothing" if show else "is missing: there is no table"
        raise UsageError(f"`--show` {what}, so `{name}` does nothing", hint="leave it out")
    calibration = corpora.text_file(text) if text else corpora.corpus(corpus or corpora.DEFAULT)
    here = session(output, may_pull=not no_pull)
    if show:
        wanted = calibration if text or corpus else None
        found = verbs.imatrix_statistics(parse(ref), here, wanted)
        output.say(_shown(found))
        output.table(imatrix_table(found.tensors))
        return
    report = verbs.imatrix(parse(ref), calibration, here, n_chunks=chunks, force=force, n_threads=threads)
    values = _values(report.artifact, report.fresh)
    output.record(values, _text(values))
    output.hint(f"slmkit quantize {ref} -t IQ3_XXS --imatrix auto")


def _shown(found: ImatrixStatistics) -> str:
    from slmkit.core import units

    chunks = units.several(found.n_chunks, "chunk") if found.n_chunks else "an unknown number of chunks"
    source = f" by {found.source}" if found.source else ""
    return f"{found.path}: {chunks} of the text {found.text or 'unknown'}{source}"


def _values(artifact: Artifact, fresh: bool) -> dict[str, Any]:
    return {
        "model": artifact.model,
        "path": str(artifact.path),
        "size_bytes": artifact.size_bytes,
        "digest": artifact.digest,
        "source": artifact.provenance.parameters["source"],
        "text": artifact.provenance.parameters["text"],
        **artifact.facts,
        "fresh": fresh,
    }


def _text(values: dict[str, Any]) -> str:
    from slmkit.core import units
    from slmkit.core.imatrix import REASONS

    size = units.size(values["size_bytes"])
    stopped = f"stopped after {units.several(values['n_chunks'], 'chunk')}: {REASONS[values['reason']]}"
    already = "" if values["fresh"] else " (was there already)"
    return f"{values['path']}  {size}  {units.several(values['n_entries'], 'matrix', 'matrices')}; {stopped}{already}"
