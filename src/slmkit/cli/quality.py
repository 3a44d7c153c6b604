"""`slmkit quality`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import SomeFailedError, UsageError, VerdictError

if TYPE_CHECKING:
    from slmkit.core.quality import QualityRun, QualitySpec
    from slmkit.core.refs import ModelRef
    from slmkit.core.tasks import TaskSpec


def quality(
    refs: options.Refs,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="REF", help="Hold against this, or what `--save-base` wrote."),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", metavar="NAME|FILE", help="Domains that come with slmkit, or a text of your own."),
    ] = None,
    n_ctx: Annotated[int, typer.Option("--ctx", "-c", help="Tokens of a chunk; the second half is scored.")] = 512,
    n_chunks: Annotated[
        int | None, typer.Option("--chunks", min=1, help="Chunks at most, in turn from each domain.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="decided", help="Stop as soon as the limits are kept or broken for certain."),
    ] = None,
    max_kld: Annotated[float | None, typer.Option("--max-kld", help="Limit of the mean KLD, in nats: 0.05.")] = None,
    max_ppl_ratio: Annotated[
        float | None, typer.Option("--max-ppl-ratio", help="Limit of the perplexity over the base's: 1.02.")
    ] = None,
    save_base: Annotated[
        Path | None,
        typer.Option("--save-base", metavar="FILE", help="Write what matters of the base, for where it is too large."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of just these.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="All columns: median, maximum, RMS Δp, PPL ratio.")] = False,
    damage: Annotated[
        bool, typer.Option("--damage", help="Where the loss sits: by kind of token, by place, the worst contexts.")
    ] = False,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="basics|FILE", help="Ask questions, too: slmkit's, or JSON lines as of MMLU."),
    ] = None,
    behaviour: Annotated[
        bool, typer.Option("--behaviour", help="Let them answer prompts, too: same path, loops, valid JSON.")
    ] = False,
    sensitivity: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Instead: which tensors cost KLD, each group of them quantized alone to Q4_0, say. Takes minutes.",
        ),
    ] = None,
    recipe_file: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE.toml",
            help="With --sensitivity: a recipe that keeps the costly tensors in Q8_0, measured too. With another "
            "suffix: rules for `slmkit quantize --rules`.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg|png", help="With --sensitivity: draw the costs.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all of it as .html or .md, a table as .csv, .json, or draw .svg, .png."
        ),
    ] = None,
    threads: options.Threads = None,
    n_gpu_layers: Annotated[
        int, typer.Option("--n-gpu-layers", "-ngl", help="Layers on the GPU; -1: as many as fit.")
    ] = -1,
    timeout: Annotated[float | None, typer.Option("--timeout", min=1, help="Seconds, after which it ends.")] = None,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Perplexity, and KL divergence from the float file, as llama-perplexity measures them, without a file of logits.

    All files of a model read the same text beside the F16, which is made if it is missing. Exit code 3 when a limit is
    not kept.
    """
    from slmkit.cli import sensitivity as sensitivity_command
    from slmkit.cli.refs import parse_all, session
    from slmkit.core.quality import QualitySpec
    from slmkit.core.units import size
    from slmkit.ops import corpora
    from slmkit.ops.quality import Asked
    from slmkit.recipes import quality as recipe
    from slmkit.recipes.damage import check_base
    from slmkit.recipes.damage import damage as damage_of

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    _check_forms(output, report, {"--damage": damage, "--tasks": tasks, "--behaviour": behaviour})
    if until not in (None, "decided"):
        raise UsageError(f"no such thing as `--until {until}`", hint="`--until decided`")
    spec = QualitySpec(
        n_ctx=n_ctx,
        n_chunks=n_chunks,
        n_threads=threads,
        n_gpu_layers=n_gpu_layers,
        max_kld=max_kld,
        max_ppl_ratio=max_ppl_ratio,
        until_decided=until is not None,
        timeout_s=timeout,
    )
    read = corpora.evaluation(corpus or ())
    here = session(output)
    if sensitivity is not None:
        given: dict[str, object] = {
            "--base": base,
            "--until": until,
            "--max-kld": max_kld,
            "--max-ppl-ratio": max_ppl_ratio,
        }
        given |= {"--save-base": save_base, "--damage": damage or None, "--tasks": tasks}
        given |= {"--behaviour": behaviour or None, "--wide": wide or None}
        clash = [name for name, value in given.items() if value is not None]
        sensitivity_command.show(
            parse_all(refs),
            sensitivity,
            read,
            spec,
            here,
            output,
            recipe_file,
            plot,
            report,
            resume=resume,
            clash=clash,
        )
        return
    if recipe_file or plot:
        raise UsageError("`--recipe` and `--plot` go with `--sensitivity`", hint="`--sensitivity Q4_0`")
    against = _base(base)
    if damage:
        check_base(against)
    asked = Asked(_task(tasks), behaviour)
    runs = recipe.quality(
        parse_all(refs), read, spec, here, base=against, resume=resume, save_base=save_base, asked=asked
    )
    _show(runs, output, wide=wide)
    try:
        for number, run in enumerate(runs if damage else ()):
            runs[number] = damage_of(run, read, here)
    finally:  # what was measured is said, whatever becomes of the damage
        _show_rest(runs, output, report)
    if save_base:
        output.say(
            f"written: {save_base} ({size(save_base.stat().st_size)}): `--base {save_base}` holds others against it"
        )
    _judge(runs, spec)
    models = dict.fromkeys(row.ref.rpartition(":")[0] or row.ref for run in runs for row in run.rows)
    output.hint(f"slmkit compare {shlex.join(models)}")


def _base(text: str | None) -> ModelRef | None:
    """A reference, or what `--save-base` wrote, which need not look like a path."""
    from slmkit.cli.refs import parse
    from slmkit.core.refs import ModelRef
    from slmkit.formats.base_file import is_base_file

    if text and is_base_file(Path(text)):
        return ModelRef("path", text)
    return parse(text) if text else None


def _task(text: str | None) -> TaskSpec | None:
    from slmkit.ops.quality.tasks import BUNDLED, bundled, task_file

    return None if text is None else bundled() if text == BUNDLED else task_file(Path(text))


def _check_forms(output: Output, report: Path | None, wanted: Mapping[str, object]) -> None:
    """Before anything is measured: a form of one table has no room for what else is `wanted`."""
    from slmkit.report import files

    if report:
        files.check_report(report)
    clash = [name for name, value in wanted.items() if value]
    if clash and not (output.takes_several or output.as_json or output.form == "html"):
        raise UsageError(
            f"`--format {output.form}` has one table: no room for `{clash[0]}`", hint="`--format md`, or `--json`"
        )
    if clash and report and not files.takes_several(report):
        raise UsageError(f"{report.name} has no room for `{clash[0]}`", hint="name a file .html or .md")


def _show(runs: Sequence[QualityRun], output: Output, *, wide: bool) -> None:
    """The tables; JSON and a page are one document, which comes with the damage."""
    from slmkit.report.quality import further_tables, quality_table

    if output.as_json or output.form == "html":
        return
    output.table(quality_table(runs, wide=wide))
    for more in further_tables(runs) if output.takes_several else ():
        output.table(more)


def _show_rest(runs: Sequence[QualityRun], output: Output, report: Path | None) -> None:
    """The damage, or the whole document, and the report."""
    from slmkit.report import files
    from slmkit.report.damage import where_lost, worst_text
    from slmkit.report.html import quality_page
    from slmkit.report.quality import quality_record

    if output.as_json:
        output.record([quality_record(run) for run in runs], "")
    elif output.form == "html":
        output.document(quality_page(*runs))
    else:
        for table in where_lost(runs):
            output.table(table)
        for damage in (damage for run in runs for damage in run.damages):
            output.lines(worst_text(damage))
    if report:
        files.write_runs(runs, report)
        output.say(f"written: {report}")


def _judge(runs: Sequence[QualityRun], spec: QualitySpec) -> None:
    """The limits as an exit code."""
    from slmkit.core.divergence import kept

    rows = [(row, run.base_row) for run in runs for row in run.rows]
    failed = list(dict.fromkeys(each.ref for run in runs for each in run.measured if each.failure))
    if failed:
        raise SomeFailedError(
            f"{len(failed)} of {len(rows)} could not be measured: {', '.join(failed)}",
            hint="the reason is in the table",
        )
    broken = [row.ref for row, base in rows if kept(row, base, spec) is False]
    if broken:
        raise VerdictError(f"over the limit: {', '.join(broken)}", hint="the rows above say by how much")
