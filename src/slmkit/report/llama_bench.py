"""Runs as llama-bench prints its own: JSON, JSON lines, CSV, Markdown, SQL.

Fields, order, types and quoting are those of the printers in llama.cpp's tools/llama-bench/llama-bench.cpp (0c1e57098):
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/llama-bench/llama-bench.cpp. What slmkit does not know is
empty or 0. `model_type` and `model_filename` are slmkit's reference, `model_size` is the size of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slmkit.core import stats
from slmkit.core.bench import BenchRow, BenchRun
from slmkit.errors import UsageError
from slmkit.formats.llama_bench import DEFAULTS, FLASH_ATTN
from slmkit.formats.runs import moment

FIELDS = {
    "build_commit": "TEXT",
    "build_number": "INTEGER",
    "cpu_info": "TEXT",
    "gpu_info": "TEXT",
    "backends": "TEXT",
    "model_filename": "TEXT",
    "model_type": "TEXT",
    "model_size": "INTEGER",
    "model_n_params": "INTEGER",
    "n_batch": "INTEGER",
    "n_ubatch": "INTEGER",
    "n_threads": "INTEGER",
    "cpu_mask": "TEXT",
    "cpu_strict": "INTEGER",
    "poll": "INTEGER",
    "type_k": "TEXT",
    "type_v": "TEXT",
    "n_gpu_layers": "INTEGER",
    "n_cpu_moe": "INTEGER",
    "split_mode": "TEXT",
    "main_gpu": "INTEGER",
    "no_kv_offload": "INTEGER",
    "flash_attn": "INTEGER",
    "devices": "TEXT",
    "tensor_split": "TEXT",
    "tensor_buft_overrides": "TEXT",
    "load_mode": "TEXT",
    "lazy_mode": "TEXT",
    "embeddings": "INTEGER",
    "no_op_offload": "INTEGER",
    "no_host": "INTEGER",
    "repack": "INTEGER",
    "fit_target": "INTEGER",
    "fit_min_ctx": "INTEGER",
    "n_prompt": "INTEGER",
    "n_gen": "INTEGER",
    "n_depth": "INTEGER",
    "test_time": "TEXT",
    "avg_ns": "INTEGER",
    "stddev_ns": "INTEGER",
    "avg_ts": "REAL",
    "stddev_ts": "REAL",
}
"""What is in a measurement, and its type in SQL."""
_SHOWN: dict[str, tuple[str, int, Any]] = {
    "n_gpu_layers": ("ngl", 3, -1),
    "n_threads": ("threads", 7, None),
    "n_batch": ("n_batch", 7, 2048),
    "n_ubatch": ("n_ubatch", 8, 512),
    "type_k": ("type_k", 6, "f16"),
    "type_v": ("type_v", 6, "f16"),
    "flash_attn": ("fa", 3, -1),
    "load_mode": ("lm", 10, "auto"),
}
"""Settings in the Markdown table: title, width, and the value with which the column is left out."""


@dataclass(frozen=True)
class _Test:
    """One measurement; `values` are numbers, texts and booleans as in the JSON."""

    values: dict[str, Any]
    samples_ns: tuple[int, ...]
    rates: list[float]
    name: str


def llama_bench(runs: Sequence[BenchRun], form: str) -> str:
    """The runs' measurements in one of llama-bench's forms; raises `UsageError` for another one."""
    if form not in FORMS:
        raise UsageError(f"llama-bench has no form {form!r}", hint=f"one of {', '.join(FORMS)}")
    return FORMS[form]([test for run in runs for test in _tests(run)])


def left_out(runs: Sequence[BenchRun]) -> list[str]:
    """The rows that llama-bench has no words for, each with the reason."""
    rows = [row for run in runs for row in run.rows]
    return [
        *(f"{row.ref} failed: llama-bench has no rows for that" for row in rows if row.failure),
        *(
            f"{row.ref} has {row.spec.n_parallel} parallel sequences: llama-bench has one"
            for row in rows
            if row.spec.n_parallel > 1 and not row.failure
        ),
    ]


def _tests(run: BenchRun) -> Iterator[_Test]:
    for row in run.rows:
        spec = row.spec
        if row.failure or spec.n_parallel > 1:
            continue
        lengths = {"pp": (spec.n_prompt, 0), "tg": (0, spec.n_gen), "pg": (spec.n_pg_prompt, spec.n_pg_gen)}
        for test, (n_prompt, n_gen) in lengths.items():
            if samples := row.samples(test):
                rates = row.rates(test)
                measured = {
                    "n_prompt": n_prompt,
                    "n_gen": n_gen,
                    "avg_ns": sum(samples) // len(samples),
                    "stddev_ns": int(stats.stdev(samples) or 0),
                    "avg_ts": stats.mean(rates),
                    "stddev_ts": stats.stdev(rates) or 0.0,
                }
                values = _engine(run) | _settings(row) | measured
                if not spec.mmap and "load_mode" not in run.build:
                    values["load_mode"] = "none"
                yield _Test({name: values[name] for name in FIELDS}, samples, rates, getattr(spec, test))


def _engine(run: BenchRun) -> dict[str, Any]:
    number, _, commit = run.build.get("llama.cpp", "").partition(" ")
    backends = run.build.get("backends") or ("CPU" if run.build.get("gpu") == "no" else "")
    return {
        "build_commit": commit[:7] if "unknown" not in commit else "",
        "build_number": int(number) if number.isdecimal() else 0,
        "cpu_info": str(run.host.get("cpu") or ""),
        "gpu_info": str(run.host.get("gpu") or ""),
        "backends": backends,
        **{name: _typed(run.build.get(name), default) for name, default in DEFAULTS.items()},
        "test_time": moment(run).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _typed(text: str | None, default: Any) -> Any:
    """A setting as an import has kept it, in the type of its default."""
    if text is None:
        return default
    if isinstance(default, bool):
        return text == "True"
    return int(text) if isinstance(default, int) and text.isdecimal() else text


def _settings(row: BenchRow) -> dict[str, Any]:
    spec = row.spec
    return {
        "model_filename": row.ref,
        "model_type": row.ref,
        "model_size": row.size_bytes,
        "model_n_params": row.n_params or 0,
        "n_batch": spec.n_batch,
        "n_ubatch": spec.n_ubatch,
        "n_threads": spec.n_threads or 0,
        "type_k": spec.type_k,
        "type_v": spec.type_v,
        "n_gpu_layers": spec.n_gpu_layers,
        "flash_attn": FLASH_ATTN[spec.flash_attn],
        "n_depth": spec.depth,
    }


def _text(value: Any) -> str:
    """As C++'s std::to_string has it."""
    return f"{value:.6f}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)


def _json_value(value: Any) -> str:
    return _text(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _fields(test: _Test) -> list[str]:
    samples = ", ".join(map(str, test.samples_ns))
    rates = ", ".join(f"{rate:g}" for rate in test.rates)
    named = [f'"{name}": {_json_value(value)}' for name, value in test.values.items()]
    return [*named, f'"samples_ns": [ {samples} ]', f'"samples_ts": [ {rates} ]']


def _json(tests: Sequence[_Test]) -> str:
    blocks = ["  {\n" + ",\n".join(f"    {line}" for line in _fields(test)) + "\n  }" for test in tests]
    return "[\n" + ",\n".join(blocks) + "\n]\n"


def _jsonl(tests: Sequence[_Test]) -> str:
    return "".join("{" + ", ".join(_fields(test)) + "}\n" for test in tests)


def _csv(tests: Sequence[_Test]) -> str:
    lines = [",".join('"' + _text(v).replace('"', '""') + '"' for v in test.values.values()) for test in tests]
    return "\n".join([",".join(FIELDS), *lines]) + "\n"


def _sql(tests: Sequence[_Test]) -> str:
    columns = ",\n".join(f"  {name} {kind}" for name, kind in FIELDS.items())
    lines = [
        f"INSERT INTO llama_bench ({', '.join(FIELDS)}) VALUES ("
        + ", ".join("'" + _text(v).replace("'", "''") + "'" for v in test.values.values())
        + ");\n"
        for test in tests
    ]
    return f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n" + "".join(lines)


def _markdown(tests: Sequence[_Test]) -> str:
    """The columns of settings that are not llama.cpp's own; threads unless there is only a GPU."""
    values = [test.values for test in tests]
    on_gpu = bool(values) and all(v["backends"] and not _is_cpu(v["backends"]) for v in values)
    shown = [
        name
        for name, (_, _, plain) in _SHOWN.items()
        if len({v[name] for v in values}) > 1
        or any(v[name] != plain for v in values if plain is not None)
        or (name == "n_gpu_layers" and on_gpu)
        or (name == "n_threads" and not on_gpu)
    ]
    columns = [("model", -30), ("size", 10), ("params", 10), ("backend", -10)]
    columns += [_SHOWN[name][:2] for name in shown] + [("test", 15), ("t/s", 20)]
    lines = [_line([title for title, _ in columns], [width for _, width in columns])]
    lines.append("|" + "".join(f" {'-' * (abs(w) - 1)}{':' if w > 0 else '-'} |" for _, w in columns))
    for test in tests:
        v = test.values
        cells = [v["model_type"], _binary(v["model_size"]), _count(v["model_n_params"]), v["backends"]]
        cells += [*(_text(v[name]) for name in shown), test.name, f"{v['avg_ts']:.2f} ± {v['stddev_ts']:.2f}"]
        lines.append(_line(cells, [width for _, width in columns]))
    builds = dict.fromkeys((v["build_commit"], v["build_number"]) for v in values)
    return "\n".join(lines) + "\n\n" + "".join(f"build: {commit} ({number})\n" for commit, number in builds)


def _is_cpu(backends: str) -> bool:
    return any(name in backends for name in ("CPU", "BLAS", "ZenDNN"))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (c.rjust(w) if w > 0 else c.ljust(-w) for c, w in zip(cells, widths, strict=True))
    return "|" + "".join(f" {cell} |" for cell in padded)


def _binary(n: int) -> str:
    return f"{n / 2**20:.2f} MiB" if n < 2**30 else f"{n / 2**30:.2f} GiB"


def _count(n: int) -> str:
    return f"{n / 1e6:.2f} M" if n < 1e9 else f"{n / 1e9:.2f} B"


FORMS: dict[str, Callable[[Sequence[_Test]], str]] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "md": _markdown,
    "sql": _sql,
}
