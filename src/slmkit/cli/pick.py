"""`slmkit pick`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import SomeFailedError, UsageError, VerdictError

if TYPE_CHECKING:
    from slmkit.core.pick import Keep, Pick


def pick(
    ref: options.Ref,
    types: Annotated[
        list[str] | None,
        typer.Option("--types", metavar="TYPE", help="Q4_0, Q5_1, ...: by default nine from Q8_0 down to Q2_K."),
    ] = None,
    max_kld: Annotated[float, typer.Option("--max-kld", help="Limit of the mean KLD, in nats.")] = 0.05,
    min_tps: Annotated[float | None, typer.Option("--min-tps", help="Generated tokens per second, at least.")] = None,
    ram: Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="What it has to fit into: 8GiB.")] = None,
    n_ctx: Annotated[
        int | None, typer.Option("--ctx", min=1, help="With so many tokens of context; by default 4096.")
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(
            "--imatrix",
            metavar="auto|none|FILE",
            help="Make them with an importance matrix, as in `slmkit quantize`; the smallest types need one.",
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option("--keep", metavar="all|best", help="`best` removes the other files that this made.")
    ] = "all",
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", metavar="NAME|FILE", help="What quality is measured on; as in `slmkit quality`."),
    ] = None,
    n_chunks: Annotated[int, typer.Option("--chunks", min=1, help="Chunks of it, in turn from each domain.")] = 32,
    n_prompt: Annotated[int, typer.Option("--n-prompt", "-p", min=0, help="Prompt tokens of the bench.")] = 512,
    n_gen: Annotated[int, typer.Option("--n-gen", "-n", min=1, help="Generated tokens of the bench.")] = 128,
    threads: options.Threads = None,
    no_pull: options.NoPull = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """From a model's name to the file to take: pull, convert, make the usual types, bench and judge them, choose.

    The choice is the file with the least size times time for a token among those that keep every limit. What is made or
    measured already is not done again, so an interrupted pick goes on where it was. Exit code 3 when nothing keeps the
    limits.
    """
    from slmkit.cli.refs import imatrix_of, parse, session
    from slmkit.core.bench import BenchSpec
    from slmkit.core.pick import KEEP, LADDER
    from slmkit.core.quality import QualitySpec
    from slmkit.core.quant import quant_types
    from slmkit.core.recommend import Wish
    from slmkit.core.units import parse_size
    from slmkit.ops import corpora
    from slmkit.recipes.pick import REPETITIONS, PickOrder
    from slmkit.recipes.pick import pick as run

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    order = PickOrder(
        types=quant_types(types or LADDER),
        wish=Wish(max_kld, min_tps, parse_size(ram) if ram else None, n_ctx),
        bench=BenchSpec(n_prompt=n_prompt, n_gen=n_gen, n_threads=threads, repetitions=REPETITIONS),
        quality=QualitySpec(n_chunks=n_chunks, n_threads=threads),
        corpus=corpora.evaluation(corpus or ()),
        keep=_keep(keep, KEEP),
        imatrix=imatrix_of(imatrix),
    )
    found = run(parse(ref), order, session(output, may_pull=not no_pull))
    _show(found, output)
    _judge(found)
    best = found.choice.best
    assert best is not None
    output.hint(f"slmkit {'show' if best.here else 'get'} {shlex.quote(best.ref)}")


def _keep(text: str, known: tuple[Keep, ...]) -> Keep:
    for word in known:
        if word == text:
            return word
    raise UsageError(f"no such thing as `--keep {text}`", hint=" or ".join(f"`--keep {word}`" for word in known))


def _show(found: Pick, output: Output) -> None:
    from slmkit.report.choice import sentences
    from slmkit.report.pick import pick_table

    if output.as_json:
        output.record({**found.document(), "sentences": list(sentences(found.choice))}, "")
    else:
        output.table(pick_table(found))


def _judge(found: Pick) -> None:
    """The choice as an exit code."""
    from slmkit.report.choice import headline

    if found.choice.best is None:
        nearest = found.choice.nearest
        hint = f"the nearest is {nearest.candidate.ref}: {nearest.reason}" if nearest else "the table says why"
        if not found.rows and found.least:
            hint = f"nothing was made; the nearest is {found.least.name}: {found.least.reason}"
        raise VerdictError(headline(found.choice), hint=hint)
    if found.failed:
        names = ", ".join(row.candidate.name for row in found.failed)
        raise SomeFailedError(
            f"{len(found.failed)} of {len(found.rows)} could not be made or measured: {names}",
            hint="the choice is among the others; the same command tries these again",
        )
