"""`slmkit convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def convert(
    ref: options.Ref,
    type_: Annotated[
        str, typer.Option("--type", metavar="f16|bf16|f32|q8_0|auto", help="Type of the weights.")
    ] = "f16",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here instead of into the registry.")
    ] = None,
    no_pull: options.NoPull = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a checkpoint (safetensors) into a GGUF, pulling it first when it is not here."""
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.recipes import verbs

    output = open_output(as_json=as_json, quiet=quiet)
    artifact = verbs.convert(parse(ref), session(output, may_pull=not no_pull), outtype=type_, target=out, force=force)
    facts = artifact.facts
    values = {
        "ref": artifact.ref if out is None else None,
        "path": str(artifact.path),
        "size_bytes": artifact.size_bytes,
        "digest": artifact.digest,
        **facts,
    }
    name = artifact.ref if out is None else str(artifact.path)
    output.record(
        values,
        f"{name}  {units.size(artifact.size_bytes)}  {facts['architecture']}, {units.count(facts['n_params'])} "
        f"parameters in {facts['n_tensors']} tensors, {facts['bpw']:.2f} bpw",
    )
    if out is None:
        output.hint(f"slmkit quantize {artifact.model} -t Q4_0,Q5_1,Q8_0")
