"""`slmkit merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def merge(
    ref: Annotated[str, typer.Argument(metavar="SHARD", help="Any shard of the model, or its reference.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.gguf", help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put the shards of a GGUF together again; of what `split` made come the bytes that were split."""
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.ops import locate
    from slmkit.ops.merge import merge as op

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    made = op(locate.gguf(parse(ref), here.registry, here.progress), target, force=force, progress=here.progress)
    values = {
        "path": str(made.path),
        "size_bytes": made.file.size_bytes,
        "sha256": made.file.sha256,
        "n_shards": made.n_shards,
        "n_tensors": made.n_tensors,
    }
    output.record(
        values,
        f"{made.path}  {units.size(made.file.size_bytes)}  {made.n_tensors} tensors of {made.n_shards} shards",
    )
