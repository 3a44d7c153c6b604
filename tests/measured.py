"""Runs made by hand, as if something had been measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Block, Failure, Memory

MIB = 2**20
SPEC = BenchSpec(n_prompt=512, n_gen=128, n_threads=2)
HOST = {"cpu": "One CPU", "n_cores": 2, "memory_bytes": 8 << 30, "system": "Linux 6", "features": ["avx2"]}
BUILD = {"engine": "llama-cpp-python 0.3.36", "llama.cpp": "0.5.0 0c1e57098", "features": "AVX2", "gpu": "no"}


def row(
    ref: str = "org/m:Q4_0", tg_s: float = 2.0, spec: BenchSpec = SPEC, digest: str = "", **changes: Any
) -> BenchRow:
    """A row whose samples lie around one second for the prompt and `tg_s` for the generation."""
    factors = (1.0, 1.02, 0.98, 1.01)
    block = Block(
        load_ns=100_000_000,
        first_ns=2_000_000,
        pp_ns=tuple(int(1e9 * f) for f in factors) if spec.n_prompt else (),
        tg_ns=tuple(int(tg_s * 1e9 * f) for f in factors) if spec.n_gen else (),
        pg_ns=tuple(int(3e9 * f) for f in factors) if spec.n_pg_gen else (),
        ttft_ns=(1_100_000_000, 1_200_000_000, 1_150_000_000) if spec.n_prompt else (),
        memory=Memory(40 * MIB, 400 * MIB, 300 * MIB, 100 * MIB),
    )
    given = {"blocks": (block,), "n_params": 134_515_008, **changes}
    return BenchRow(ref, digest or f"sha256:{ref}", 90 * MIB, spec, **given)


FAILED = BenchRow("org/m:Q8_0", "sha256:q8", 136 * MIB, SPEC, failure=Failure("engine.crashed", "it crashed"))


def run(
    *rows: BenchRow,
    created: str = "2026-11-24T10:00:00+00:00",
    host: Mapping[str, Any] = HOST,
    build: Mapping[str, str] = BUILD,
) -> BenchRun:
    """A run of these rows, or of one."""
    return BenchRun(created, dict(host), dict(build), rows or (row(),), "0.1.0")
