"""llama-bench's measurements as bench runs.

Fields are those of `test::get_fields` in llama.cpp's tools/llama-bench/llama-bench.cpp (0c1e57098), and a few of older
versions. https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/llama-bench/llama-bench.cpp
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Block
from slmkit.errors import FormatError, UsageError

SOURCE = "llama-bench"
UNKNOWN = "unknown:"
"""What stands before the digest of a file that nobody has hashed: it equals no real one, which begin with `sha256:`."""
DEFAULTS: dict[str, Any] = {
    "cpu_mask": "0x0",
    "cpu_strict": False,
    "poll": 50,
    "n_cpu_moe": 0,
    "split_mode": "layer",
    "main_gpu": 0,
    "no_kv_offload": False,
    "devices": "auto",
    "tensor_split": "0.00",
    "tensor_buft_overrides": "none",
    "load_mode": "auto",
    "lazy_mode": "auto",
    "embeddings": False,
    "no_op_offload": 0,
    "no_host": False,
    "repack": True,
    "fit_target": 0,
    "fit_min_ctx": 0,
}
"""Settings that slmkit does not have: what llama.cpp does when nobody chooses."""
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
"""enum llama_flash_attn_type of include/llama.h."""
_NOTE = "measured by llama-bench: sizes are of the weights alone, digests of the files are unknown"
_FLASH_ATTN = {number: name for name, number in FLASH_ATTN.items()}
_LENGTHS = ("n_prompt", "n_gen", "n_pg_prompt", "n_pg_gen")
_MODEL = re.compile(r"[^/\\]*$")


def runs(records: Sequence[Mapping[str, Any]]) -> list[BenchRun]:
    """One run for each machine and build, and for each of the settings that slmkit does not have, in their order.

    Raises `FormatError` for a record that lacks something.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for number, record in enumerate(records, 1):
        try:
            key = (tuple(_host(record).items()), tuple(_build(record).items()))
            groups.setdefault(key, []).append({**record, "": number})
        except KeyError as error:
            raise FormatError(f"measurement {number} of llama-bench has no {error.args[0]!r}") from error
    return [
        BenchRun(
            created=min(str(record["test_time"]) for record in group),
            host=_host(group[0]),
            build=_build(group[0]),
            rows=_rows(group),
            warnings=(_NOTE,),
            source=SOURCE,
        )
        for group in groups.values()
    ]


def _rows(group: Sequence[Mapping[str, Any]]) -> tuple[BenchRow, ...]:
    """A file's prompt and generation under the same settings are one row, as slmkit measures them: the first of each
    test, then the second of each, and so on.
    """
    rows: dict[tuple[Any, ...], BenchRow] = {}
    counts: Counter[tuple[Any, ...]] = Counter()
    for record in group:
        row, test = _row(record)
        same = (row.ref, row.digest, row.n_params, *_without_lengths(row.spec).items())
        counts[(*same, test)] += 1
        key = (*same, counts[(*same, test)])
        rows[key] = _joined(rows[key], row) if key in rows else row
    return tuple(rows.values())


def _without_lengths(spec: BenchSpec) -> dict[str, Any]:
    return {name: value for name, value in spec.conditions().items() if name not in _LENGTHS}


def _joined(row: BenchRow, other: BenchRow) -> BenchRow:
    """Two rows of different tests as one."""
    lengths = {name: getattr(row.spec, name) or getattr(other.spec, name) for name in _LENGTHS}
    repetitions = max(row.spec.repetitions, other.spec.repetitions)
    (one,), (two,) = row.blocks, other.blocks
    samples = {name: getattr(one, name) + getattr(two, name) for name in ("pp_ns", "tg_ns", "pg_ns")}
    return replace(row, spec=replace(row.spec, **lengths, repetitions=repetitions), blocks=(replace(one, **samples),))


def _host(record: Mapping[str, Any]) -> dict[str, Any]:
    gpu = record.get("gpu_info")
    return {"cpu": str(record["cpu_info"]), **({"gpu": str(gpu)} if gpu else {})}


def _build(record: Mapping[str, Any]) -> dict[str, str]:
    """The engine, and each setting that is not what llama.cpp does by itself: unlike ones are not put together."""
    backends = record.get("backends", "")
    chosen = {
        name: str(record[name])
        for name, default in DEFAULTS.items()
        if name != "load_mode" and record.get(name, default) != default
    }
    if (load_mode := _load_mode(record)) not in ("mmap", "none"):  # those are settings of slmkit's, too
        chosen["load_mode"] = load_mode
    return {
        "engine": SOURCE,
        "llama.cpp": f"{record.get('build_number', 0)} {record['build_commit']}",
        **({"backends": str(backends)} if backends else {}),
        **chosen,
    }


def _row(record: Mapping[str, Any]) -> tuple[BenchRow, str]:
    """A measurement as a row of its own, and which test it is."""
    number = record[""]
    try:
        n_prompt, n_gen = int(record["n_prompt"]), int(record["n_gen"])
        both = n_prompt > 0 and n_gen > 0
        samples = tuple(int(ns) for ns in record["samples_ns"])
        test = "pg" if both else "pp" if n_prompt else "tg"
        name = _MODEL.findall(str(record["model_filename"]))[0] or str(record.get("model_type", "model"))
        size_bytes, n_params = int(record["model_size"]), int(record.get("model_n_params") or 0)
        spec = BenchSpec(
            n_prompt=0 if both else n_prompt,
            n_gen=0 if both else n_gen,
            n_pg_prompt=n_prompt if both else 0,
            n_pg_gen=n_gen if both else 0,
            depth=int(record.get("n_depth", 0)),
            n_threads=int(record["n_threads"]),
            n_gpu_layers=int(record["n_gpu_layers"]),
            n_batch=int(record["n_batch"]),
            n_ubatch=int(record["n_ubatch"]),
            type_k=str(record["type_k"]),
            type_v=str(record["type_v"]),
            flash_attn=_FLASH_ATTN.get(int(record.get("flash_attn", -1)), str(record.get("flash_attn"))),
            mmap="mmap" in _load_mode(record),
            repetitions=len(samples),
        )
    except KeyError as error:
        raise FormatError(f"measurement {number} of llama-bench has no {error.args[0]!r}") from error
    except (OverflowError, TypeError, ValueError, UsageError) as error:
        raise FormatError(f"measurement {number} of llama-bench: {error}") from error
    if any(ns <= 0 for ns in samples):
        raise FormatError(f"measurement {number} of llama-bench has a sample that took no time at all")
    row = BenchRow(
        ref=name,
        digest=f"{UNKNOWN}{name}:{size_bytes}",
        size_bytes=size_bytes,
        spec=spec,
        blocks=(_block(test, samples),),
        n_params=n_params or None,
    )
    return row, test


def _load_mode(record: Mapping[str, Any]) -> str:
    """How the file is loaded: `auto` is mmap wherever the system has it; older versions had `use_mmap`."""
    mode = record.get("load_mode", "mmap" if record.get("use_mmap", True) else "none")
    return "mmap" if mode == "auto" else str(mode)


def _block(test: str, samples: tuple[int, ...]) -> Block:
    return {"pp": Block(pp_ns=samples), "tg": Block(tg_ns=samples), "pg": Block(pg_ns=samples)}[test]
