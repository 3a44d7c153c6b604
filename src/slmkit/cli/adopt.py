"""`slmkit adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def adopt(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .gguf file or a checkpoint folder.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Take a local GGUF or checkpoint into the registry by link; nothing is copied."""
    from slmkit.cli.refs import session
    from slmkit.core import units
    from slmkit.ops import adopt as op

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    artifact = op.adopt(path, here.registry, here.progress)
    output.record(
        {"ref": artifact.ref, "path": str(artifact.path), "size_bytes": artifact.size_bytes, "digest": artifact.digest},
        f"{artifact.ref}  {units.size(artifact.size_bytes)}  {artifact.path}",
    )
    output.hint(f"slmkit quantize {artifact.ref} -t Q4_0" if artifact.is_checkpoint else f"slmkit bench {artifact.ref}")
