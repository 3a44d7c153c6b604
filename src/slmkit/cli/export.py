"""`slmkit export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import UsageError


def export(
    ref: options.Ref,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    to: Annotated[
        str, typer.Option("--to", metavar="hf", help="What to make: hf is a Hugging Face checkpoint.")
    ] = "hf",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a GGUF back into a Hugging Face checkpoint: bf16 safetensors, config and tokenizer files.

    A quantized file is dequantized: what quantizing lost stays lost, and the README that is written says so.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.recipes.export import export as made

    output = open_output(as_json=as_json, quiet=quiet)
    if to != "hf":
        raise UsageError(f"cannot export to {to!r}", hint="`--to hf` is what there is")
    report = made(parse(ref), folder, session(output))
    output.record(
        {"path": str(folder.absolute()), "architecture": report.architecture, "notes": list(report.notes)},
        f"{folder}: {report.architecture}, {report.n_tensors} tensors, {units.size(report.size_bytes)}",
    )
    for note in report.notes:
        output.warn(note)
    output.hint(f"slmkit convert {shlex.quote(str(folder.absolute()))}")
