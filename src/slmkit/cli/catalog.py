"""`slmkit catalog`."""

from __future__ import annotations

from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import UsageError


def catalog(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Only models whose name or note has this text.")
    ] = None,
    size_class: Annotated[
        str | None, typer.Option("--class", metavar="micro|small|medium", help="100M–1.4B, 1.5B–13.9B or 14B–30B.")
    ] = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only models that need no access request.")] = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Small language models worth starting with. Their aliases can be typed wherever a REF is wanted."""
    from slmkit.core import units
    from slmkit.hub import catalog as source
    from slmkit.report.table import Cell, Column, Table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    if size_class not in (None, *source.CLASSES):
        raise UsageError(f"no class {size_class!r}", hint=f"one of {', '.join(source.CLASSES)}")
    found = [
        e
        for e in source.entries()
        if (size_class is None or e.size_class == size_class)
        and not (open_only and e.gated)
        and (text is None or text.lower() in f"{e.alias} {e.repo} {e.note}".lower())
    ]
    columns = (
        Column("alias", "alias", right=False),
        Column("repo", "repository", right=False),
        Column("n_params", "params"),
        Column("class", "class", right=False),
        Column("licence", "licence", right=False),
        Column("gated", "gated", right=False),
        Column("note", "note", right=False),
    )
    rows = tuple(
        (
            Cell(e.alias, e.alias),
            Cell(e.repo, e.repo),
            Cell(units.count(e.n_params), e.n_params),
            Cell(e.size_class, e.size_class),
            Cell(e.licence, e.licence),
            Cell("gated" if e.gated else "", e.gated),
            Cell(e.note, e.note),
        )
        for e in found
    )
    output.table(Table(columns, rows, "catalog"))
    if not rows:
        output.say("no model matches")
