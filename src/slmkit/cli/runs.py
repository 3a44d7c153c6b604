"""`slmkit runs list`, `show`, `diff`, `export`, `import` and `rm`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import UsageError

if TYPE_CHECKING:
    from slmkit.core.history import StoredQuality
    from slmkit.registry.runs import DamagedRun

app = typer.Typer(
    no_args_is_help=True,
    help="What was measured: every run of `slmkit bench` and `slmkit quality`, and those from elsewhere.",
)

SLMKIT = "slmkit"
_ID = "A run's id as `slmkit runs list` shows it, or its beginning; `latest` is the newest."
Run = Annotated[str, typer.Argument(metavar="ID", help=_ID)]
Runs = Annotated[list[str], typer.Argument(metavar="ID...", help=_ID)]


@app.command("list")
def list_runs(
    model: Annotated[str | None, typer.Option(metavar="TEXT", help="With rows whose model's name has TEXT.")] = None,
    quant: Annotated[str | None, typer.Option(metavar="TYPE", help="With rows of this type, such as Q4_0.")] = None,
    host: Annotated[str | None, typer.Option(metavar="TEXT", help="On machines whose CPU or GPU has TEXT.")] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="On this day (UTC) or later.")] = None,
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="On this day (UTC) or earlier.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg|png", help="Draw speed against date.")] = None,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List runs, the newest first. With `--model` and `--quant` that leave one row of each, its speed or KLD, too."""
    from slmkit.core.history import Listed, Wanted
    from slmkit.ops import runs as op
    from slmkit.registry.paths import home
    from slmkit.report.runs import runs_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    wanted = Wanted(model, quant, host, _day("--since", since), _day("--until", until))
    listed, damaged = op.find(wanted, home())
    _warn(damaged, output)
    if plot:  # first: when it cannot be drawn, nothing is printed
        from slmkit.report.plots.trend import trend

        trend([found for found in listed if isinstance(found, Listed)], plot)
    output.table(runs_table(listed))
    if plot:
        output.say(f"drawn: {plot}")
    elif not listed:
        chosen = wanted != Wanted()
        output.say("no such run" if chosen else "no run yet")
        output.hint("slmkit runs list" if chosen else "slmkit bench smollm2-135m")


@app.command()
def show(
    ids: Runs,
    wide: Annotated[bool, typer.Option("--wide", help="All columns that there are.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all of it as .html or .md, a table as .csv, .json, or draw .svg, .png."
        ),
    ] = None,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a run, or several of one kind side by side: its table, and where and by what each was measured."""
    from slmkit.core.history import StoredQuality, StoredRun, StoredSensitivity
    from slmkit.registry import runs
    from slmkit.registry.paths import home
    from slmkit.report import files
    from slmkit.report.html import runs_page
    from slmkit.report.runs import record, run_table, sensitivity_run_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    if report:
        files.check_report(report)
    found = [runs.read_any(home(), text) for text in ids]
    benches = [stored for stored in found if isinstance(stored, StoredRun)]
    qualities = [stored for stored in found if isinstance(stored, StoredQuality)]
    sensitivities = [stored for stored in found if isinstance(stored, StoredSensitivity)]
    alike = next((kind for kind in (benches, qualities, sensitivities) if len(kind) == len(found)), None)
    if alike is None and (report or not as_json):
        kinds = " and ".join(f"`{kind}`" for kind in dict.fromkeys(runs.kind_of(stored.run) for stored in found))
        raise UsageError(f"runs of {kinds} have no table in common", hint="name those of one kind")
    if report and alike:  # first: when it cannot be written, nothing is printed
        files.write_runs([stored.run for stored in alike], report)
    if as_json:
        documents = [record(stored) for stored in found]
        output.record(documents if len(documents) > 1 else documents[0], "")
    elif output.form == "html":
        output.document(runs_page([stored.run for stored in found]))
    elif benches:
        output.table(run_table(*benches, wide=wide))
    elif sensitivities:
        for each in sensitivities:
            output.table(sensitivity_run_table(each))
    else:
        _show_quality(qualities, output, wide=wide)
    if report:
        output.say(f"written: {report}")


@app.command()
def diff(
    a: Run, b: Run, form: options.Format = None, as_json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Put two runs beside each other, and name each key of machine, engine and settings that is not the same.

    Nothing is put together or averaged over both.
    """
    from slmkit.core.rundiff import diff as compared
    from slmkit.registry import runs
    from slmkit.registry.paths import home
    from slmkit.report.runs import diff_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    one, two = (runs.read(home(), text) for text in (a, b))
    difference = compared(one.run, two.run)
    if as_json:
        values = [{**asdict(value), "change": value.change} for value in difference.values]
        output.record(
            {
                "a": one.id,
                "b": two.id,
                "differing": [asdict(item) for item in difference.differing],
                "values": values,
                "disturbed": list(difference.disturbed),
            },
            "",
        )
    else:
        output.table(diff_table(one.short, two.short, difference))


@app.command()
def export(
    ids: Runs,
    form: Annotated[
        str,
        typer.Option("--as", metavar="FORM", help="slmkit, llama-bench:json|jsonl|csv|md|sql, or benchstat."),
    ] = SLMKIT,
    target: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Print runs for another machine (`slmkit runs import` reads them) or for another program.

    What slmkit does not know is empty or 0 in llama-bench's forms.
    """
    from slmkit.core.bench import BenchRun
    from slmkit.registry import runs
    from slmkit.registry.paths import home
    from slmkit.report.interchange import check_interchange, interchange, left_out
    from slmkit.report.table import writing

    output = open_output(quiet=quiet)
    if form != SLMKIT:
        check_interchange(form)
    stored = [runs.read_any(home(), text) for text in ids]
    if form == SLMKIT:
        documents = [each.run.document() for each in stored]
        text = json.dumps(documents if len(documents) > 1 else documents[0], indent=1, ensure_ascii=False) + "\n"
    else:
        found = [each.run for each in stored if isinstance(each.run, BenchRun)]
        if not found:
            kind = runs.kind_of(stored[0].run)
            raise UsageError(f"{form} has no words for runs of `{kind}`", hint=f"`slmkit runs export {ids[0]}`")
        for each in stored:
            if not isinstance(each.run, BenchRun):
                output.warn(f"left out: {each.id} is a run of `{runs.kind_of(each.run)}`")
        text = interchange(found, form)
        for reason in left_out(found, form):
            output.warn(f"left out: {reason}")
    if target is None:
        sys.stdout.write(text)
        return
    with writing(target):
        target.write_text(text, encoding="utf-8")
    output.say(f"written: {target}")


@app.command("import")
def import_runs(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Of slmkit, or llama-bench's JSON or JSONL.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Keep the runs of other machines, and what llama-bench has measured, beside those made here: all files or none.

    A run that is here already is not kept twice.
    """
    from slmkit.core import units
    from slmkit.ops import runs as op
    from slmkit.registry.paths import home

    output = open_output(as_json=as_json, quiet=quiet)
    brought = op.bring(files, home())
    lines = [
        f"{run.id}  {run.path}, {units.several(run.n_rows, 'row')}" + ("" if run.fresh else ", here already")
        for run in brought
    ]
    output.record([{**asdict(run), "path": str(run.path)} for run in brought], "\n".join(lines))
    output.hint(f"slmkit runs show {brought[0].id}")


@app.command()
def rm(
    ids: Runs,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Delete runs, after asking; damaged ones, too."""
    from slmkit.registry import runs
    from slmkit.registry.paths import home

    output = open_output(as_json=as_json, quiet=quiet)
    paths = list(dict.fromkeys(runs.find(home(), text) for text in ids))
    doing = yes and not dry_run
    if not (yes or dry_run or as_json) and sys.stdin.isatty():
        output.say("\n".join(path.stem for path in paths))
        doing = typer.confirm(f"delete {'this run' if len(paths) == 1 else f'these {len(paths)} runs'}?", err=True)
    for path in paths if doing else ():
        path.unlink(missing_ok=True)
    names = [path.stem for path in paths]
    said = "deleted" if doing else "would delete"
    output.record({"runs": names, "dry_run": not doing}, "\n".join(f"{said} {name}" for name in names))
    if not doing:
        output.hint(f"slmkit runs rm {' '.join(ids)} --yes")


def _show_quality(found: list[StoredQuality], output: Output, *, wide: bool) -> None:
    """All that was asked, where there is room for it."""
    from slmkit.report.damage import worst_text
    from slmkit.report.quality import further_tables
    from slmkit.report.runs import quality_run_table

    output.table(quality_run_table(*found, wide=wide))
    if output.takes_several:
        runs = [stored.run for stored in found]
        for more in further_tables(runs):
            output.table(more)
        for damage in (damage for run in runs for damage in run.damages):
            output.lines(worst_text(damage))


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise UsageError(f"{option} is {text!r}: no day", hint=f"such as {option} 2026-11-24") from None


def _warn(damaged: list[DamagedRun], output: Output) -> None:
    for run in damaged:
        output.warn(f"{run.path} is no run: {run.reason}; `slmkit runs rm {run.path.stem}` deletes it")
