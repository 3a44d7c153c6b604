"""`slmkit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def compare(
    refs: options.Refs,
    form: options.Format = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg|png", help="Draw size against speed and against KLD.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as .html, .md, .csv, .json, .jsonl, .svg or .png.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """One table of size, reduction, bpw, speed, memory and quality, from what has been made and measured.

    Nothing is measured again: what is missing is a dash, and the command that fills it is printed below. Where quality
    was measured, ★ marks the files that no other of the model beats in size, generation and KLD together.
    """
    from slmkit.cli.refs import parse_all, session
    from slmkit.ops import compare as op
    from slmkit.recipes import verbs
    from slmkit.report import files, plots
    from slmkit.report.html import compare_page
    from slmkit.report.tables import compare_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    if report:
        files.check_report(report)
    here = session(output)
    comparison = op.compare(verbs.artifacts(parse_all(refs), here), here.registry)
    if plot:  # first: when it cannot be drawn, nothing is printed
        plots.of_comparison(comparison, plot)
    if report:
        files.write_comparison(comparison, report)
    if output.form == "html":
        output.document(compare_page(comparison))
    else:
        output.table(compare_table(comparison))
    for command in comparison.missing:
        output.hint(command)
    if plot:
        output.say(f"drawn: {plot}")
    if report:
        output.say(f"written: {report}")
