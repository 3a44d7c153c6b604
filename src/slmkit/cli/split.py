"""`slmkit split`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output

DEFAULT_SIZE = "2G"


def split(
    ref: options.Ref,
    prefix: Annotated[
        Path, typer.Argument(metavar="PREFIX", help="./model makes ./model-00001-of-00003.gguf and so on.")
    ],
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help=f"Weights in one shard: 500M, 2G (powers of 1000); {DEFAULT_SIZE} when no limit is given.",
        ),
    ] = None,
    max_tensors: Annotated[int | None, typer.Option(metavar="N", min=1, help="Tensors in one shard.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Divide a GGUF into shards, as llama-gguf-split does.

    They are files of yours, which the registry does not know. `merge` makes the same bytes of them again.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.core.convert import split_size
    from slmkit.ops import locate
    from slmkit.ops.split import split as op

    output = open_output(as_json=as_json, quiet=quiet)
    if max_size is None and max_tensors is None:
        max_size = DEFAULT_SIZE
    max_bytes = None if max_size is None else split_size(max_size)
    here = session(output)
    source = locate.gguf(parse(ref), here.registry, here.progress)
    made = op(source, prefix, max_bytes=max_bytes, max_tensors=max_tensors, force=force, progress=here.progress)
    values = {
        "path": str(made.first),
        "files": [{"name": f.name, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in made.files],
        "size_bytes": made.size_bytes,
        "n_tensors": made.n_tensors,
        "changes": list(made.changes),
    }
    lines = [f"{made.folder / file.name}  {units.size(file.size_bytes)}" for file in made.files]
    output.record(values, "\n".join(lines))
    for change in made.changes:
        output.warn(f"merging gives the same tensors, but not the same bytes as {source.name}: {change}")
    output.hint(f"slmkit merge {shlex.quote(str(made.first))} OUT.gguf")
