"""Runs as Go's benchmark format, which benchstat compares: one line for each sample.

https://go.dev/design/14313-benchmark-format, https://pkg.go.dev/golang.org/x/perf/cmd/benchstat
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from slmkit.core.bench import BenchRow, BenchRun
from slmkit.report.settings import tests

_RATES = ("pp", "tg", "pg")
_NOT_IN_A_NAME = re.compile(r"[\s/]+")


def benchstat(runs: Sequence[BenchRun]) -> str:
    """`BenchmarkPrompt/model=smollm2-135m:Q4_0/test=pp512/threads=2 1 38404935 ns/op 13331 tok/s` and the like.

    Machine and engine are lines of configuration before them, so that benchstat keeps unlike ones apart; without a
    value they end that of the run before.
    """
    lines = ["Unit tok/s better=higher", "Unit peak-RSS-B better=lower"]
    for run in runs:
        lines += ["", *(f"{key}: {value}".rstrip() for key, value in _configuration(run))]
        lines += [line for row in run.rows if not row.failure for line in _samples(row)]
    return "\n".join(lines) + "\n"


def _configuration(run: BenchRun) -> list[tuple[str, str]]:
    return [
        (key, " ".join(str(value or "").split()))
        for key, value in (
            ("cpu", run.host.get("cpu")),
            ("gpu", run.host.get("gpu")),
            ("system", run.host.get("system")),
            ("engine", run.build.get("engine")),
            ("llama.cpp", run.build.get("llama.cpp")),
            ("source", run.source),
        )
    ]


def _samples(row: BenchRow) -> Iterator[str]:
    names = {"pp": "Prompt", "tg": "Generate", "pg": "PromptAndGenerate"}
    for test in _RATES:
        name = _name(names[test], row, getattr(row.spec, test))
        for ns, rate in zip(row.samples(test), row.rates(test), strict=True):
            yield f"{name} 1 {ns} ns/op {rate:.6g} tok/s"
    for ns in row.ttft_ns:
        yield f"{_name('FirstToken', row, row.spec.pp)} 1 {ns} ns/op"
    every = tests(row.spec) + (f" @ d{row.spec.depth}" if row.spec.depth else "")
    for block in row.counted:
        if block.memory and block.memory.peak_rss:
            yield f"{_name('Memory', row, every)} 1 {block.memory.peak_rss} peak-RSS-B"


def _name(benchmark: str, row: BenchRow, test: str) -> str:
    """All settings are in the name: benchstat compares what has the same one."""
    spec = row.spec
    parts = {
        "model": row.ref,
        "test": test.replace(" @ ", "@"),
        "parallel": spec.n_parallel,
        "batch": spec.n_batch,
        "ubatch": spec.n_ubatch,
        "ctk": spec.type_k,
        "ctv": spec.type_v,
        "fa": spec.flash_attn,
        "ngl": spec.n_gpu_layers,
        "mmap": int(spec.mmap),
        "threads": spec.n_threads or "default",
        "prompt": str(spec.conditions()["prompt"] or "default")[:8],
    }
    return f"Benchmark{benchmark}" + "".join(f"/{k}={_NOT_IN_A_NAME.sub('_', str(v))}" for k, v in parts.items())
