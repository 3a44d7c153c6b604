"""`slmkit quantize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import SlmkitError, SomeFailedError

if TYPE_CHECKING:
    from slmkit.core.quant import QuantType


def quantize(
    ref: options.Ref,
    types: Annotated[
        list[str],
        typer.Option("--type", "-t", metavar="TYPE", help="Q4_0, Q5_1, Q8_0, ...: several times or with commas."),
    ],
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads; by default the physical cores.")
    ] = None,
    no_pull: options.NoPull = False,
    force: options.Force = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make smaller GGUFs of a model, pulling and converting it first where that is missing.

    Each file is loaded and decodes a few tokens before it is called good. What is there already is not made again.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core.quant import quant_types
    from slmkit.recipes import verbs
    from slmkit.report.tables import Quantized, quantize_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    wanted = quant_types(types)
    rows: list[Quantized] = []
    failures: dict[str, SlmkitError] = {}

    def failed(quant: QuantType, error: SlmkitError) -> None:
        failures[quant.name] = error

    here = session(output, may_pull=not no_pull)
    for report in verbs.quantize(parse(ref), wanted, here, force=force, n_threads=threads, on_failure=failed):
        made = report.artifact
        rows.append(
            Quantized(
                ref=made.ref,
                variant=made.variant or "",
                before_bytes=report.source.size_bytes,
                after_bytes=made.size_bytes,
                bpw=made.facts.get("bpw"),
                n_fallback=made.facts.get("n_fallback", 0),
                n_tensors=made.facts.get("n_tensors", 0),
                fresh=report.fresh,
            )
        )
    if failures and not rows:  # nothing to show beside the first reason
        raise next(iter(failures.values()))
    output.table(quantize_table(rows))
    if failures:
        hint = next((error.hint for error in failures.values() if error.hint), None)
        reasons = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
        raise SomeFailedError(f"{len(failures)} of {len(wanted)} types could not be made: {reasons}", hint=hint)
    output.hint(f"slmkit bench {made.model}")
