"""`slmkit recipe run` and `slmkit recipe plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import SlmkitError, SomeFailedError

if TYPE_CHECKING:
    from slmkit.recipes.schema import Recipe

app = typer.Typer(no_args_is_help=True, help="Models, types, bench settings and reports in one TOML file.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A recipe such as configs/demo.toml.")]


@app.command()
def run(
    file: File,
    no_pull: options.NoPull = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the verbs in order, skip what is done, go on after a failed item, end with the compare table."""
    from slmkit.recipes.schema import load

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    run_recipe(load(file), output, may_pull=not no_pull)


@app.command()
def plan(file: File, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Show what running the recipe would do, and why."""
    from slmkit.cli.refs import session
    from slmkit.recipes.plan import plan as make_plan
    from slmkit.recipes.schema import load
    from slmkit.report.table import Cell, Column, Table

    output = open_output(as_json=as_json, quiet=quiet)
    steps = make_plan(load(file), session(output))
    columns = (
        Column("to_do", "", right=False),
        Column("verb", "verb", right=False),
        Column("ref", "model", right=False),
        Column("why", "why", right=False),
    )
    rows = tuple(
        (Cell("run" if s.to_do else "skip", s.to_do), Cell(s.verb, s.verb), Cell(s.ref, s.ref), Cell(s.why, s.why))
        for s in steps
    )
    output.table(Table(columns, rows, "plan"))


def run_recipe(recipe: Recipe, output: Output, *, may_pull: bool = True) -> None:
    """Run, print the table, write the reports; raises `SomeFailedError` when an item failed."""
    from slmkit.cli.refs import session
    from slmkit.recipes.run import ItemFailure
    from slmkit.recipes.run import run as run_all
    from slmkit.report.files import write_comparison
    from slmkit.report.tables import compare_table

    result = run_all(recipe, session(output, may_pull=may_pull))
    failures = list(result.failures)
    if result.comparison is not None:
        output.table(compare_table(result.comparison))
        for path in recipe.report_files:
            try:
                write_comparison(result.comparison, path, recipe.name)
            except SlmkitError as error:
                failures.append(ItemFailure.of(f"report {path}", error))
            else:
                output.say(f"written: {path}")
    for hint in dict.fromkeys(failure.hint for failure in failures if failure.hint):
        output.hint(hint)
    if failures:
        reasons = "; ".join(f"{failure.item} ({failure.message})" for failure in failures)
        raise SomeFailedError(f"failed: {reasons}", hint="the others were done; run the same command again to go on")
