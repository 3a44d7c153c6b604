"""Runs built by hand, in the sizes of real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slmkit.core.bench import NOISY, BenchRow, BenchRun, BenchSpec, Block, Failure, Memory
from slmkit.core.compare import CompareRow, Comparison, Judged, QualityTerms, with_best
from tests import judged

MIB = 2**20
MODEL = "HuggingFaceTB/SmolLM2-135M"
SPEC = BenchSpec(n_threads=2)
HOST = {
    "cpu": "Intel(R) Xeon(R) Processor @ 2.20GHz",
    "n_cores": 2,
    "n_logical": 2,
    "memory_bytes": 15 * 2**30,
    "system": "Linux 6.1.0",
    "features": ["avx2", "fma"],
}
BUILD = {"engine": "llama-cpp-python 0.3.36", "llama.cpp": "0c1e57098", "features": "AVX2 FMA", "gpu": "no"}
MACHINE = {"n_threads": 2, "bandwidth_bytes_per_s": 21.3e9, "flop_per_s": 380e9, "kernel_ns": 1}
SIZES = {"F16": 271_000_000, "Q8_0": 144_000_000, "Q4_K_M": 105_000_000, "Q4_0": 91_000_000}
SPEEDS = {"F16": (412.0, 40.0), "Q8_0": (561.0, 88.0), "Q4_K_M": (688.0, 102.0), "Q4_0": (1190.0, 121.0)}
_WAVE = (1.0, 1.004, 0.997, 0.992, 1.006)
"""What the samples are multiplied with."""


def block(variant: str, spec: BenchSpec, **changes: Any) -> Block:
    """What one child measured; generation slows down with depth and speeds up to 2 threads."""
    pp_rate, tg_rate = SPEEDS[variant]
    threads = min(spec.n_threads or 2, 2) / 2
    kv = 36_864 * spec.n_ctx
    rest = kv + 109 * MIB + 52 * MIB

    def ns(n_tokens: int, rate: float, n: int = 5) -> tuple[int, ...]:
        return tuple(int(n_tokens * 1e9 / rate * _WAVE[i % len(_WAVE)]) for i in range(n if n_tokens else 0))

    values: dict[str, Any] = {
        "load_ns": 150_000_000,
        "first_ns": 61_000_000,
        "pp_ns": ns(spec.n_prompt, pp_rate * threads / (1 + spec.depth / 4096)),
        "tg_ns": ns(spec.n_gen, tg_rate * threads / (1 + spec.depth / 8192)),
        "pg_ns": ns(spec.n_pg_prompt + spec.n_pg_gen, tg_rate * 2),
        "ttft_ns": ns(512, pp_rate * 0.98),
        "itl_ns": ns(1, tg_rate * 0.97, 128),
        "n_warmup": 2,
        "memory": Memory(
            baseline_rss=38 * MIB,
            peak_rss=SIZES[variant] + rest,
            file_backed=SIZES[variant] + 9 * MIB,
            anonymous=rest,
            weights=SIZES[variant],
            repacked=0,
            kv=kv,
            compute=109 * MIB,
            swap=0,
            major_faults=3,
        ),
        "seen": {"elapsed_s": 10.0, "n_cores": 2, "others_cpu_s": 0.3, "frequency_mean_hz": 2.2e9},
    }
    return Block(**(values | changes))


def row(variant: str, spec: BenchSpec = SPEC, *, model: str = MODEL, **changes: Any) -> BenchRow:
    """A row of two blocks; `changes` are those of its blocks."""
    return BenchRow(
        ref=f"{model}:{variant}",
        digest=f"sha256:{variant}",
        size_bytes=SIZES[variant],
        spec=spec,
        blocks=(block(variant, spec, **changes),) * 2,
        n_params=134_515_008,
        bytes_per_token=SIZES[variant] - MIB,
    )


def run(*rows: BenchRow, host: Mapping[str, Any] = HOST, **changes: Any) -> BenchRun:
    values = {"slmkit": "0.1.0", "machine": MACHINE} | changes
    return BenchRun("2026-11-24T19:00:00+00:00", host, BUILD, rows, **values)


BUSY = "other programs used 23 % of all cores: close them and measure again"
NOISY_ROW = row("Q4_K_M", state=NOISY, reasons=(BUSY,))
FOUR = run(row("F16"), row("Q8_0"), NOISY_ROW, row("Q4_0"))
FAILED = BenchRow(
    f"{MODEL}:Q8_0",
    "sha256:q8",
    SIZES["Q8_0"],
    SPEC,
    failure=Failure("engine.memory", 'no <b>memory</b> | "left" & gone', "allow it more: `--max-rss`"),
)
PI = {**HOST, "cpu": "Raspberry Pi 5 (Cortex-A76)", "n_cores": 4}
COMPARISON = Comparison(
    rows=tuple(
        CompareRow(r.ref, MODEL, r.ref.partition(":")[2], r.size_bytes, 1 - r.size_bytes / SIZES["F16"], 16.0, r)
        for r in FOUR.rows
    ),
    spec=SPEC,
    missing=(f"slmkit bench {MODEL}:Q5_0",),
    host=HOST,
    build=BUILD,
)


def _judged(variant: str, kld: float | None) -> Judged:
    base = judged.row("F16", None, model=MODEL)
    row = base if kld is None else judged.row(variant, kld, model=MODEL)
    return Judged.of(row, base)


KLDS = {"F16": None, "Q8_0": 0.002, "Q4_K_M": 0.03, "Q4_0": 0.08}
JUDGED = replace(
    COMPARISON,
    rows=with_best([replace(r, quality=_judged(r.variant, KLDS[r.variant])) for r in COMPARISON.rows]),
    quality=QualityTerms("prose", judged.CORPUS, 512, 40, tuple(BUILD.items())),
)
"""The same, with its quality."""
