"""`slmkit bench`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import ChangedError, FormatError, SomeFailedError, UsageError

if TYPE_CHECKING:
    from slmkit.core.bench import BenchRun, BenchSpec
    from slmkit.core.refs import ModelRef
    from slmkit.core.versus import Versus
    from slmkit.recipes.session import Session

_WITH_JOB = ("job", "resume", "wide", "plot", "report", "other_form", "form", "as_json", "quiet")
_NOT_IN_KIT = ("precision", "vs", "min_ram", "resume", "wide", "plot", "report", "other_form", "form")
_SEVERAL = "Several: 1,2,4, 1-8, 1-8+2 or 1-8*2."


def _list(default: str) -> list[str]:
    """Of an option that may be given several times: `-p 8 -p 16` is `-p 8,16`, as in llama-bench."""
    return [default]


def bench(
    context: typer.Context,
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="REF...", help="Model references; org/name means all its variants.")
    ] = None,
    n_prompt: Annotated[list[str], typer.Option("--n-prompt", "-p", help=f"Prompt tokens. {_SEVERAL}")] = _list("512"),
    n_gen: Annotated[list[str], typer.Option("--n-gen", "-n", help="Generated tokens.")] = _list("128"),
    n_pg: Annotated[
        list[str] | None, typer.Option("--prompt-gen", "-pg", metavar="PP,TG", help="A prompt and what follows it.")
    ] = None,
    depth: Annotated[list[str], typer.Option("--depth", "-d", help="Tokens in the context before each test.")] = _list(
        "0"
    ),
    n_batch: Annotated[list[str], typer.Option("--batch-size", "-b", help="n_batch.")] = _list("2048"),
    n_ubatch: Annotated[list[str], typer.Option("--ubatch-size", "-ub", help="n_ubatch.")] = _list("512"),
    type_k: Annotated[
        list[str], typer.Option("--cache-type-k", "-ctk", help="Of the KV cache: f16, q8_0, ...")
    ] = _list("f16"),
    type_v: Annotated[list[str], typer.Option("--cache-type-v", "-ctv", help="Of the KV cache.")] = _list("f16"),
    flash_attn: Annotated[
        list[str], typer.Option("--flash-attn", "-fa", metavar="auto|on|off", help="Several: on,off.")
    ] = _list("auto"),
    threads: Annotated[
        list[str] | None,
        typer.Option("--threads", "-t", help="One for each core, or several: 1-8*2; auto finds the best."),
    ] = None,
    n_gpu_layers: Annotated[
        list[str], typer.Option("--n-gpu-layers", "-ngl", help="Layers on the GPU; -1: as many as fit.")
    ] = _list("-1"),
    mmap: Annotated[
        list[str], typer.Option("--mmap", "-mmp", metavar="0|1", help="Map the file, or read it. Or 0,1.")
    ] = _list("1"),
    parallel: Annotated[
        list[str], typer.Option("--parallel", help="Sequences decoded together. Several: 1,2,4.")
    ] = _list("1"),
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", help="A text for the time to first token and between tokens.")
    ] = None,
    repetitions: Annotated[int, typer.Option("--repetitions", "-r", min=1, help="Of each test, at most.")] = 20,
    precision: Annotated[
        str, typer.Option("--precision", metavar="PERCENT", help="Measure until each rate is known to that.")
    ] = "2%",
    max_time: Annotated[
        float, typer.Option("--max-time", min=0, help="Seconds for one row, after which nothing more is begun.")
    ] = 300,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds for one process, after which it is stopped.")
    ] = 1800,
    max_rss: Annotated[
        str | None, typer.Option("--max-rss", metavar="SIZE", help="Stop a process that takes more memory: 4GiB.")
    ] = None,
    vs: Annotated[
        str | None, typer.Option("--vs", metavar="REF", help="Measure this one in turn, and say which is faster.")
    ] = None,
    min_ram: Annotated[
        bool, typer.Option("--min-ram", help="Search for the least memory in which each still runs at speed.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of just these.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="All columns: percentiles, buffers, ceiling.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg|png", help="Draw what varies: threads, depth, or size.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write it as .html, .md, .csv, .json, .svg or .png.")
    ] = None,
    other_form: Annotated[
        str | None,
        typer.Option("--as", metavar="FORM", help="Print it as llama-bench:json|jsonl|csv|md|sql, or benchstat."),
    ] = None,
    export_kit: Annotated[
        Path | None,
        typer.Option("--export-kit", metavar="DIR", help="Measure nothing: write it as a job."),
    ] = None,
    job: Annotated[
        Path | None, typer.Option("--job", metavar="FILE", help="Measure what the kit of another machine says.")
    ] = None,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure speed as llama-bench does, time to first token and between tokens, load time, memory and energy.

    Each measurement has a process of its own, and the rows take turns until each is known to ± 2 %. One that crashes
    becomes a row with its reason, and the others still run. A row that something disturbed says so.
    """
    from slmkit.cli.refs import parse, parse_all, session
    from slmkit.core.bench import BenchSpec
    from slmkit.core.grid import Grid, numbers, pair, switches, words
    from slmkit.core.units import parse_share, parse_size
    from slmkit.core.versus import versus
    from slmkit.ops import kit
    from slmkit.ops.bench import LEAST_CHILDREN, PAIRS, Effort
    from slmkit.ops.bench import bench as op
    from slmkit.ops.corpora import text_file
    from slmkit.recipes import verbs
    from slmkit.report import files, plots
    from slmkit.report.interchange import check_interchange, interchange, left_out

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    if plot:
        plots.check_plot(plot)
    if report:
        files.check_report(report)
    if other_form:
        check_interchange(other_form)
    if bool(refs) == bool(job):
        raise UsageError("name models, or a job of another machine", hint="`slmkit bench REF...` or `--job job.json`")
    best_threads = threads == ["auto"]
    _refuse_what_is_ignored(context, best_threads)
    here = session(output)
    against: Sequence[Versus] = ()
    n_absent = 0
    if job:
        asked = kit.load(job)
        found = kit.artifacts(asked, job, here.registry, here.progress)
        n_absent = len(asked.models) - len(found)
        effort = Effort(max_time_s=asked.max_time_s)
        run = op(found, asked.specs, here.registry, here.progress, effort, resume=resume)
    else:
        grid = Grid(
            n_prompt=numbers("--n-prompt", *n_prompt),
            n_gen=numbers("--n-gen", *n_gen),
            n_pg=tuple(pair("--prompt-gen", text) for text in n_pg or ()),
            depth=numbers("--depth", *depth),
            n_batch=numbers("--batch-size", *n_batch),
            n_ubatch=numbers("--ubatch-size", *n_ubatch),
            type_k=words(*type_k),
            type_v=words(*type_v),
            flash_attn=words(*flash_attn),
            n_threads=numbers("--threads", *threads) if threads and not best_threads else (None,),
            n_gpu_layers=numbers("--n-gpu-layers", *n_gpu_layers),
            mmap=switches("--mmap", *mmap),
            n_parallel=numbers("--parallel", *parallel),
        )
        plain = BenchSpec(
            prompt=text_file(prompt_file).text if prompt_file else None,
            repetitions=repetitions,
            timeout_s=timeout,
            max_rss_bytes=parse_size(max_rss) if max_rss else None,
        )
        specs: Sequence[BenchSpec] = grid.spans(plain)
        models = [*parse_all(refs or ()), *([parse(vs)] if vs else [])]
        if export_kit:
            kit.export(verbs.artifacts(models, here), specs, export_kit, max_time_s=max_time)
            output.say(f"written: {export_kit}: its README.md says how to go on")
            return
        other = _other(models, here) if vs else None
        effort = Effort(
            precision=parse_share(precision),
            max_time_s=max_time,
            least_children=PAIRS if vs else LEAST_CHILDREN,
            in_step=bool(vs),
        )
        run = verbs.bench(models, specs, here, effort, resume=resume, min_ram=min_ram, best_threads=best_threads)
        against = list(versus(run, other)) if other else ()
    if plot:
        plots.of_run(run, plot)
    if report:
        files.write_bench(run, report, against)
    if other_form:
        output.document(interchange([run], other_form))
        for reason in left_out([run], other_form):
            output.warn(f"left out: {reason}")
        _say(run, output, against)
    else:
        _show(run, output, wide=wide, against=against)
    for path, done in ((plot, "drawn"), (report, "written")):
        if path:
            output.say(f"{done}: {path}")
    _complain(run, n_absent)
    if job:
        output.hint("slmkit runs export latest -o run.json")
    elif not other_form:
        measured = dict.fromkeys(row.ref.rpartition(":")[0] or row.ref for row in run.rows)
        output.hint(f"slmkit compare {shlex.join(measured)}")


def _other(models: Sequence[ModelRef], here: Session) -> str:
    """The digest of the last one, which the others are held against."""
    from slmkit.recipes import verbs

    *subjects, ref = models
    found = verbs.artifacts([ref], here)
    if len(found) > 1:
        raise UsageError(f"{ref} is several files", hint=f"name one of them: {', '.join(a.ref for a in found)}")
    with suppress(FormatError, ChangedError):  # a damaged one becomes a row
        if [artifact.digest for artifact in verbs.artifacts(subjects, here)] == [found[0].digest]:
            raise UsageError(
                f"{' '.join(map(str, subjects))} and {ref} are the same file, so there is nothing to tell apart",
                hint="name another one: `slmkit list` shows what there is",
            )
    return found[0].digest


def _refuse_what_is_ignored(context: typer.Context, best_threads: bool) -> None:
    """Raises `UsageError` for options that mean nothing beside `--job` or `--export-kit`."""
    typed = {
        parameter.name: f"`{parameter.opts[0]}`"
        for parameter in context.command.params
        if parameter.name and (source := context.get_parameter_source(parameter.name)) and source.name == "COMMANDLINE"
    }
    if "job" in typed and (ignored := [typed[name] for name in typed if name not in _WITH_JOB]):
        raise UsageError(
            f"{', '.join(ignored)} beside `--job`: the job says what is measured, and how",
            hint="leave it out, or write another job with `--export-kit`",
        )
    if "export_kit" not in typed:
        return
    if best_threads:
        raise UsageError(
            "`--threads auto` beside `--export-kit`: which number is best differs from machine to machine",
            hint="list numbers, such as `-t 1-4`: each is measured there",
        )
    if ignored := [typed[name] for name in _NOT_IN_KIT if name in typed]:
        raise UsageError(f"{', '.join(ignored)} beside `--export-kit`: a job cannot say that", hint="leave it out")


def _show(run: BenchRun, output: Output, *, wide: bool, against: Sequence[Versus] = ()) -> None:
    from slmkit.report.bench import bench_table
    from slmkit.report.html import bench_page

    if output.as_json:
        output.record({**run.document(), **({"versus": [asdict(each) for each in against]} if against else {})}, "")
    elif output.form == "html":
        output.document(bench_page(run, against=against))
    else:
        output.table(bench_table(run, wide=wide, against=against))
        if output.form in ("csv", "json", "jsonl"):  # which have no notes
            _say(run, output, against)


def _say(run: BenchRun, output: Output, against: Sequence[Versus]) -> None:
    from slmkit.report.bench import verdicts
    from slmkit.report.settings import Entries

    for verdict in verdicts(Entries.of(run), against):
        output.say(verdict)


def _complain(run: BenchRun, n_absent: int) -> None:
    """Raises `SomeFailedError` for rows that could not be measured, and for models of a job that are not here."""
    failed = [row.ref for row in run.rows if row.failure]
    if failed:
        raise SomeFailedError(
            f"{len(failed)} of {len(run.rows)} could not be measured: {', '.join(failed)}",
            hint="the reason is in the table; `slmkit doctor` checks this machine",
        )
    if n_absent:
        raise SomeFailedError(
            "a model of the job is not here" if n_absent == 1 else f"{n_absent} models of the job are not here",
            hint="put them beside it, and run it again; what was measured is kept",
        )
