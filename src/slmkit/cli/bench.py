"""`slmkit bench`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import SomeFailedError


def bench(
    refs: options.Refs,
    n_prompt: Annotated[int, typer.Option("--n-prompt", "-p", min=0, help="Prompt tokens.")] = 512,
    n_gen: Annotated[int, typer.Option("--n-gen", "-n", min=0, help="Generated tokens.")] = 128,
    depth: Annotated[int, typer.Option("--depth", "-d", min=0, help="Tokens in the context before each test.")] = 0,
    repetitions: Annotated[int, typer.Option("--repetitions", "-r", min=1, help="Of each test.")] = 5,
    threads: options.Threads = None,
    n_gpu_layers: Annotated[
        int, typer.Option("--n-gpu-layers", "-ngl", help="Layers on the GPU; -1: as many as fit.")
    ] = -1,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds for one model, after which it is stopped.")
    ] = 1800,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure speed as llama-bench does, time to first token, load time and memory.

    Each model runs in a process of its own: one that crashes becomes a row with its reason, and the others still run.
    """
    from slmkit.cli.refs import parse_all, session
    from slmkit.core.bench import BenchSpec
    from slmkit.recipes import verbs
    from slmkit.report.bench import bench_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    spec = BenchSpec(
        n_prompt=n_prompt,
        n_gen=n_gen,
        depth=depth,
        repetitions=repetitions,
        n_threads=threads,
        n_gpu_layers=n_gpu_layers,
        timeout_s=timeout,
    )
    run = verbs.bench(parse_all(refs), spec, session(output))
    if as_json:
        output.record(run.document(), "")
    else:
        output.table(bench_table(run))
    failed = [row for row in run.rows if row.failure]
    if failed:
        raise SomeFailedError(
            f"{len(failed)} of {len(run.rows)} could not be measured: {', '.join(row.ref for row in failed)}",
            hint="the reason is in the table; `slmkit doctor` checks this machine",
        )
    models = dict.fromkeys(row.ref.rpartition(":")[0] or row.ref for row in run.rows)
    output.hint(f"slmkit compare {shlex.join(models)}")
