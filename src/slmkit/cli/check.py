"""`slmkit check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.core.check import Check
from slmkit.errors import InconclusiveError, SlmkitError, SomeFailedError, VerdictError


def check(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]...", help="Models; without any, those of the baseline.")
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="FILE", help="A run: what `slmkit bench --json` printed.")
    ] = "",
    max_slowdown: Annotated[
        str, typer.Option("--max-slowdown", metavar="SHARE", help="How much longer the same tokens may take.")
    ] = "5%",
    max_rss_growth: Annotated[
        str, typer.Option("--max-rss-growth", metavar="SHARE", help="How much larger peak RSS may be.")
    ] = "3%",
    max_size_growth: Annotated[
        str, typer.Option("--max-size-growth", metavar="SHARE", help="How much larger the file may be.")
    ] = "1%",
    min_tps: Annotated[
        float | None, typer.Option("--min-tps", min=0, help="Generated tokens per second, at least, on this machine.")
    ] = None,
    max_ttft: Annotated[
        str | None, typer.Option("--max-ttft", metavar="TIME", help="To the first token, at most: 500ms.")
    ] = None,
    max_kld: Annotated[
        float | None, typer.Option("--max-kld", min=0, help="Mean KLD beside the float file, at most, in nats: 0.05.")
    ] = None,
    max_ppl_ratio: Annotated[
        float | None, typer.Option("--max-ppl-ratio", min=0, help="Perplexity over the float file's, at most: 1.02.")
    ] = None,
    min_same_top: Annotated[
        str | None, typer.Option("--min-same-top", metavar="SHARE", help="Same most likely token, at least: 90%.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", metavar="NAME|FILE", help="What quality is measured on, as for `slmkit quality`."),
    ] = None,
    n_chunks: Annotated[
        int | None, typer.Option("--chunks", min=1, help="Chunks of it at most, in turn from each domain.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="FILE|ID", help="Judge this run instead of measuring now.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there.")] = None,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Exit with 0 when it is neither a pass nor a regression.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure what a baseline has, and say whether it became slower or larger: a gate for CI.

    It measures until the answer is certain, or up to 20 processes of each row, at the speed that the machine has at the
    time. Exit code 0: pass, 3: regression, 1: could not measure, or inconclusive. The table is appended to
    $GITHUB_STEP_SUMMARY where that is set.

    Limits of quality are absolute and need no baseline: with one of them the models are read beside their float file.
    """
    from slmkit.cli.refs import parse_all, session
    from slmkit.core.check import REGRESSION, Limits
    from slmkit.core.quality import QualitySpec
    from slmkit.core.units import parse_share, parse_time
    from slmkit.ops import corpora
    from slmkit.recipes import gate
    from slmkit.report.check import check_markdown, check_table
    from slmkit.report.check import junit as as_junit
    from slmkit.report.table import writing

    output = open_output(as_json=as_json, quiet=quiet)
    limits = Limits(
        max_slowdown=parse_share(max_slowdown),
        max_rss_growth=parse_share(max_rss_growth),
        max_size_growth=parse_share(max_size_growth),
        min_tok_per_s=min_tps,
        max_ttft_ns=parse_time(max_ttft) if max_ttft else None,
        max_kld=max_kld,
        max_ppl_ratio=max_ppl_ratio,
        min_same_top=parse_share(min_same_top) if min_same_top else None,
    )
    here = session(output)
    found = gate.gate(
        parse_all(refs or []),
        limits,
        here,
        baseline=gate.read_baseline(baseline) if baseline else None,
        measured=gate.read_run(run, here, kind="bench" if baseline else "quality") if run else None,
        corpus=lambda: corpora.evaluation(corpus or ()),
        spec=QualitySpec(n_chunks=n_chunks),
    )
    if as_json:
        output.record(found.document(), "")
    else:
        output.table(check_table(found))
        output.say(f"{found.verdict}: {found.summary}")
    try:
        if junit:
            with writing(junit):
                junit.write_text(as_junit(found, allow_inconclusive=allow_inconclusive), encoding="utf-8")
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with writing(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
                file.write(check_markdown(found))
    except SlmkitError as error:
        if found.verdict != REGRESSION:
            raise
        output.warn(error.message)  # a regression is the worse news, and has an exit code of its own
    _raise(found, allow_inconclusive)


def _raise(found: Check, allow_inconclusive: bool) -> None:
    """The verdict as an exit code."""
    from slmkit.core.check import INCONCLUSIVE, REGRESSION, UNMEASURED

    def named(verdict: str) -> str:
        return ", ".join(f"{j.ref} {j.test}" for j in found.with_verdict(verdict))

    if found.verdict == REGRESSION:
        raise VerdictError(f"regression: {named(REGRESSION)}", hint="the rows above say by how much")
    if found.verdict == UNMEASURED:
        raise SomeFailedError(f"could not measure: {named(UNMEASURED)}", hint="`slmkit doctor` checks this machine")
    if found.verdict == INCONCLUSIVE and not allow_inconclusive:
        raise InconclusiveError(
            f"inconclusive: {named(INCONCLUSIVE)}",
            hint="measure on a quieter machine, or a baseline with more processes; `--allow-inconclusive` lets it pass",
        )
