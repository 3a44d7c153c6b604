"""`slmkit plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import UsageError


def plan(
    ref: options.Ref,
    types: Annotated[
        list[str] | None,
        typer.Option("--types", "-t", metavar="TYPE", help="Q4_0, Q5_1, ...: by default all that there are."),
    ] = None,
    ctx: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Tokens of context; by default 4096,32768, as far as the model's own goes."),
    ] = None,
    cache_type: Annotated[
        str, typer.Option(metavar="TYPE,...", help="Types of the KV cache: f16, q8_0, q4_0, ...")
    ] = "f16",
    ram: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What it has to fit into: 8GiB; by default all of this machine."),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(
            metavar="auto|FILE",
            help="As `quantize` makes all types with an importance matrix: some tensors get another type then. By "
            "default those that need one.",
        ),
    ] = None,
    no_pull: options.NoHub = False,
    form: options.Format = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg|png", help="Draw the sizes.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Size, memory and speed (an estimate) of every type, before anything is made or downloaded.

    For a checkpoint or a GGUF, here or on the Hub, of which only headers are asked for.
    """
    from slmkit.cli.refs import imatrix_of, parse, session
    from slmkit.core.quant import quant_types
    from slmkit.core.units import parse_size
    from slmkit.recipes import foresight
    from slmkit.report.planned import plan_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    if plot:
        from slmkit.report import plots

        plots.check_plot(plot)
    planned = foresight.plan(
        parse(ref),
        session(output, may_pull=not no_pull),
        types=quant_types(types or ()),
        n_ctx=_numbers(ctx or ""),
        cache_types=[name for name in cache_type.split(",") if name.strip()],
        ram_bytes=None if ram is None else parse_size(ram),
        imatrix=imatrix_of(imatrix),
    )
    if plot:  # first: when it cannot be drawn, nothing is printed
        plots.sizes_of_types(planned, plot)
    if as_json:
        output.record(planned.document(), "")
    else:
        output.table(plan_table(planned))
    if plot:
        output.say(f"drawn: {plot}")


def _numbers(text: str) -> list[int]:
    """Of `4096,32768`; raises `UsageError`."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"not a number of tokens: {text!r}", hint="`--ctx 4096,32768`") from error
