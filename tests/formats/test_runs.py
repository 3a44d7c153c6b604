"""Runs as text: what is written is read back, and what is no run says so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.bench import BenchRun
from slmkit.core.history import Listed, StoredRun
from slmkit.core.rundiff import diff
from slmkit.errors import FormatError
from slmkit.formats.runs import parse, plain
from slmkit.report.interchange import FORMS, interchange
from slmkit.report.runs import diff_table, run_table, runs_table
from slmkit.report.table import markdown
from tests.formats.spoilt import spoil
from tests.measured import FAILED, row, run

RECORD = {
    "build_commit": "0c1e570",
    "build_number": 7000,
    "cpu_info": "A CPU",
    "gpu_info": "",
    "backends": "CPU",
    "model_filename": "/models/org/m-Q4_0.gguf",
    "model_type": "llama 256M Q4_0",
    "model_size": 89941248,
    "model_n_params": 134515008,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_threads": 2,
    "poll": 50,
    "type_k": "f16",
    "type_v": "f16",
    "n_gpu_layers": -1,
    "flash_attn": -1,
    "load_mode": "auto",
    "n_prompt": 512,
    "n_gen": 0,
    "n_depth": 0,
    "test_time": "2026-11-24T18:53:25Z",
    "samples_ns": [1_000_000_000, 1_100_000_000],
}


def of(*records: dict[str, Any]) -> list[BenchRun]:
    return parse(json.dumps(records).encode())


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_what_is_written_is_read_back() -> None:
    one, two = run(row(), FAILED), run(row("org/n:F16"))
    assert [plain(found) for found in parse(text(plain(one)))] == [plain(one)]
    assert [plain(found) for found in parse(text([plain(one), plain(two)]))] == [plain(one), plain(two)]


def test_a_run_of_the_first_schema_is_read() -> None:
    """It had one block, and that in the row itself."""
    document = plain(run())
    (old,) = document["rows"]
    (block,) = old.pop("blocks")
    memory = {k: block["memory"][k] for k in ("baseline_rss", "peak_rss", "file_backed", "anonymous")}
    kept = {k: block[k] for k in ("load_ns", "pp_ns", "tg_ns", "ttft_ns")}
    document |= {"schema": 1, "rows": [{**old, **kept, "memory": memory}]}
    (found,) = parse(text(document))
    assert found.rows[0].tg_ns == row().tg_ns


def test_a_prompt_and_a_generation_of_llama_bench_are_one_row() -> None:
    tg = {**RECORD, "n_prompt": 0, "n_gen": 128, "samples_ns": [2_000_000_000]}
    pg = {**RECORD, "n_prompt": 64, "n_gen": 16, "samples_ns": [500_000_000]}
    deep = {**RECORD, "n_depth": 4096}
    (found,) = of(RECORD, {**RECORD, "n_prompt": 128}, tg, pg, deep)
    specs = [(r.spec.n_prompt, r.spec.n_gen, r.spec.n_pg_prompt, r.spec.n_pg_gen, r.spec.depth) for r in found.rows]
    assert specs == [(512, 128, 64, 16, 0), (128, 0, 0, 0, 0), (512, 0, 0, 0, 4096)]
    assert found.rows[0].tg_rates == [64.0]
    assert found.source == "llama-bench"
    assert found.rows[0].ref == "m-Q4_0.gguf"
    assert not found.rows[0].digest.startswith("sha256:")


@pytest.mark.parametrize(
    "change", [{"cpu_info": "B"}, {"build_commit": "x"}, {"poll": 0}, {"load_mode": "mlock"}, {"gpu_info": "RTX"}]
)
def test_unlike_machines_builds_and_settings_are_runs_of_their_own(change: dict[str, Any]) -> None:
    one, two = of(RECORD, {**RECORD, **change})
    assert (one.host, one.build) != (two.host, two.build)


def test_older_llama_bench_is_read() -> None:
    old = {k: v for k, v in RECORD.items() if k not in ("load_mode", "n_depth", "backends")}
    (found,) = of({**old, "use_mmap": False, "flash_attn": True, "n_gpu_layers": 99})
    spec = found.rows[0].spec
    assert (spec.mmap, spec.flash_attn, spec.depth, spec.n_gpu_layers) == (False, "on", 0, 99)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "nothing is in it"),
        (b"3", "not a bench run"),
        (b'{"kind": "quality"}', "not a bench run"),
        (text({**plain(run()), "schema": 99}), "schema is 99"),
        (text({k: v for k, v in plain(run()).items() if k != "rows"}), "without 'rows'"),
        (text({**plain(run()), "created": "yesterday"}), "`created`"),
        (text({**plain(run()), "host": 3}), "whose host is not"),
        (text({**plain(run()), "rows": [3]}), "something else"),
        (text({**plain(run()), "rows": []}), "without rows"),
        (text([{**RECORD, "samples_ns": [0]}]), "no time at all"),
        (text([{**RECORD, "type_k": "q3_k"}]), "measurement 1 of llama-bench: type_k"),
        (text([RECORD, {k: v for k, v in RECORD.items() if k != "samples_ns"}]), "measurement 2 .* 'samples_ns'"),
        (text([{**RECORD, "flash_attn": 7}]), "flash_attn"),
        (text([{**RECORD, "test_time": "x"}]), "`created`"),
        (text([{**RECORD, "n_prompt": 0}]), "nothing to measure"),
    ],
)
def test_what_is_no_run_says_what_is_wrong(content: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse(content)


def test_a_run_that_does_not_know_the_size_is_shown_beside_one_that_does() -> None:
    (found,) = parse(text([{**RECORD, "model_size": 0}]))
    assert markdown(diff_table("a", "b", diff(found, run())))
    assert markdown(diff_table("a", "b", diff(found, found)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_wrong_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """Never another error, and what is read can be shown."""
    document = json.loads(text(data.draw(st.sampled_from([plain(run(row(), FAILED)), [RECORD]]))))
    spoil(document, data)
    try:
        found = parse(text(document))
    except FormatError:
        return
    listed = [Listed(StoredRun("20261124-bench-abc", one), one.rows) for one in found]
    assert markdown(runs_table(listed))
    for one in listed:
        assert markdown(run_table(one.stored))
        assert markdown(diff_table("a", "b", diff(one.stored.run, run())))
        assert all(isinstance(interchange([one.stored.run], form), str) for form in FORMS)


def test_what_llama_bench_prints_is_read(llama_bench: Path, f16: Path) -> None:
    command: list[str | Path] = [
        llama_bench,
        "-m",
        f16,
        "-p",
        "16",
        "-n",
        "4",
        "-pg",
        "8,2",
        "-d",
        "0,8",
        "-r",
        "2",
        "-t",
        "1",
    ]
    for form in ("json", "jsonl"):
        done = subprocess.run([*command, "-o", form], check=True, capture_output=True, timeout=120)
        (found,) = parse(done.stdout)
        assert [r.spec.depth for r in found.rows] == [0, 8]
        assert all(len(r.pp_ns) == len(r.tg_ns) == len(r.samples("pg")) == 2 for r in found.rows)
