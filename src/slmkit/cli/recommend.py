"""`slmkit recommend`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import UsageError, VerdictError

if TYPE_CHECKING:
    from slmkit.core.recommend import Recommendation

_MAX_KLD = 0.05
_BUDGET = "10m"


def recommend(
    ref: options.Ref,
    ram: Annotated[
        str | None,
        typer.Option("--ram", metavar="SIZE", help="What it has to fit into: 8GiB; by default this machine's memory."),
    ] = None,
    n_ctx: Annotated[
        int | None, typer.Option("--ctx", min=1, help="With so many tokens of context; by default 4096.")
    ] = None,
    min_tps: Annotated[float | None, typer.Option("--min-tps", help="Generated tokens per second, at least.")] = None,
    max_kld: Annotated[float, typer.Option("--max-kld", help="Limit of the mean KLD, in nats.")] = _MAX_KLD,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="For another computer, such as raspberry-pi-5-8gb: estimates."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Make and measure first what is missing, the most promising first.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="TIME", help="With --measure: what is not done by then is stopped; by default 10m."
        ),
    ] = None,
    no_pull: options.NoHub = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Which file of a model to take, from what was measured; where nothing was, from estimates, marked as such.

    The choice is the file with the least size times time for a token among those that keep every limit. An estimate of
    quality is never taken for good: only where nothing is proven may it be named, as an estimate. Exit code 3 when
    nothing keeps the limits.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core.bench import BenchSpec
    from slmkit.core.quality import QualitySpec
    from slmkit.core.recommend import Wish
    from slmkit.core.units import parse_duration, parse_size
    from slmkit.host import devices
    from slmkit.ops import corpora
    from slmkit.recipes.pick import N_CHUNKS, REPETITIONS
    from slmkit.recipes.recommend import Measuring
    from slmkit.recipes.recommend import recommend as run

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    wish = Wish(max_kld, min_tps, parse_size(ram) if ram else None, n_ctx)
    budget_s = parse_duration(budget or _BUDGET)
    typed = {
        "--ram": ram,
        "--ctx": n_ctx,
        "--min-tps": min_tps,
        "--max-kld": max_kld if max_kld != _MAX_KLD else None,
        "--device": device,
        "--no-pull": no_pull,
        "--measure": True,
        "--budget": budget,
    }
    command = shlex.join(["slmkit", "recommend", ref, *_words(typed)])
    if budget and not measure:
        raise UsageError("`--budget` is the time for `--measure`, which was not asked for", hint=f"`{command}`")
    measuring = (
        Measuring(BenchSpec(repetitions=REPETITIONS), QualitySpec(n_chunks=N_CHUNKS), corpora.evaluation(), budget_s)
        if measure
        else None
    )
    other = devices.device(device) if device else None
    here = session(output, may_pull=not no_pull)
    found = run(parse(ref), wish, here, device=other, measuring=measuring)
    _show(found, output)
    if found.choice.best is None:
        _refuse(found)
    _hint(found, output, ref, command)


def _words(typed: Mapping[str, str | float | None]) -> Iterator[str]:
    """Options as they are typed; those that are `None` or `False` are not."""
    for option, value in typed.items():
        if value is True:
            yield option
        elif value:
            yield from (option, value if isinstance(value, str) else f"{value:.10g}")


def _show(found: Recommendation, output: Output) -> None:
    from slmkit.report.choice import sentences
    from slmkit.report.recommend import recommend_table

    if output.as_json:
        output.record({**found.document(), "sentences": list(sentences(found.choice))}, "")
    else:
        output.table(recommend_table(found))


def _refuse(found: Recommendation) -> None:
    """The answer is no."""
    from slmkit.report.choice import headline

    nearest = found.choice.nearest
    hint = f"the nearest is {nearest.candidate.name}: {nearest.reason}" if nearest else "the table says why"
    if found.open and not found.measured:
        hint += "; nothing could be measured in that time: go on with the same command, or a longer `--budget`"
    raise VerdictError(headline(found.choice), hint=hint)


def _hint(found: Recommendation, output: Output, ref: str, measure: str) -> None:
    from slmkit.core.recommend import is_certain

    best = found.choice.best
    is_open = best is not None and found.device is None and not is_certain(best, found.choice.wish)
    if found.choice.is_estimate or is_open:
        output.hint(measure)
    elif best and not best.here:
        output.hint(f"slmkit quantize {ref} -t {best.name}")
    elif best:
        output.hint(f"slmkit show {best.ref}")
