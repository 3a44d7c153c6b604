"""The table of a bench: what people see fits and says only what differs; machines get everything."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from slmkit.cli.output import _rich_table
from slmkit.core import stats
from slmkit.core.bench import BenchRun, Block
from slmkit.core.versus import versus
from slmkit.report.bench import bench_table, pp_of_max, tg_of_max
from slmkit.report.html import bench_page
from slmkit.report.settings import Entries
from slmkit.report.table import Table, render

from .benches import BUILD, BUSY, FAILED, FOUR, HOST, MIB, MODEL, NOISY_ROW, PI, SIZES, SPEC, block, row, run


def titles(table: Table) -> list[str]:
    return [column.title for column in table.for_people().columns]


def column(table: Table, key: str) -> list[str]:
    i = [column.key for column in table.columns].index(key)
    return [cells[i].text for cells in table.rows]


def lines(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(_rich_table(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_four_types_of_a_model_fit_a_terminal() -> None:
    """In 120 columns nothing is folded, also with energy and with rates of five digits."""
    fast = replace(row("Q4_0"), blocks=(block("Q4_0", SPEC, pp_ns=(40_000_000, 41_000_000), joules={"tg": 14.0}),))
    table = bench_table(run(*FOUR.rows[:3], fast))
    assert column(table, "pp_tok_per_s")[3].startswith("12643.9")
    assert len(lines(table, 120)) == 1 + 4
    assert all(line.split()[-1] in ("state", "ok", "noisy") for line in lines(table, 120))


def test_people_see_llama_bench_s_numbers_and_the_state() -> None:
    table = bench_table(FOUR)
    assert titles(table) == [
        "type", "size", "pp512 tok/s", "tg128 tok/s", "tg of max", "TTFT", "load", "peak RSS", "anonymous", "state",
    ]  # fmt: skip
    assert column(table, "ref") == ["F16", "Q8_0", "Q4_K_M", "Q4_0"]
    assert column(table, "tg_tok_per_s")[0] == "40.01 ± 0.21"
    assert column(table, "state") == ["ok", "ok", "noisy", "ok"]


def test_wide_shows_what_was_measured_and_nothing_else() -> None:
    shown = titles(bench_table(FOUR, wide=True))
    for title in (
        "pp median",
        "tg MAD",
        "tg 95 % low",
        "tg 95 % high",
        "pp of max",
        "TTFT p50",
        "TTFT p99",
        "ITL p90",
        "first token",
        "file-backed",
        "KV",
        "compute",
        "faults",
    ):
        assert title in shown
    for title in ("pg tok/s", "pg MAD", "VRAM", "J/tok", "threads", "n_batch"):  # not measured, or the same for all
        assert title not in shown


def test_a_rate_has_its_median_its_mad_and_its_interval() -> None:
    several = replace(SPEC, n_pg_prompt=64, n_pg_gen=8)
    rated = row("F16", several)
    (record,) = bench_table(run(rated)).records()
    for test in ("pp", "tg", "pg"):
        rates = rated.rates(test)
        low, high = record[f"{test}_low_tok_per_s"], record[f"{test}_high_tok_per_s"]
        assert record[f"{test}_median_tok_per_s"] == stats.median(rates)
        assert record[f"{test}_mad_tok_per_s"] == stats.mad(rates)
        assert (low, high) == stats.interval(rates)
        assert low < record[f"{test}_tok_per_s"] < high
    assert column(bench_table(run(rated), wide=True), "tg_mad_tok_per_s") == ["0.16"]
    single = replace(rated, blocks=(block("F16", several, tg_ns=(10**9,), pp_ns=()),))
    (record,) = bench_table(run(single)).records()
    assert (record["tg_mad_tok_per_s"], record["tg_low_tok_per_s"], record["tg_high_tok_per_s"]) == (0, None, None)
    assert record["pp_mad_tok_per_s"] is None


def test_machines_get_the_same_columns_from_every_run() -> None:
    tables = [
        bench_table(FOUR),
        bench_table(FOUR, wide=True),
        bench_table(run(FAILED)),
        bench_table(FOUR, run(row("F16"))),
    ]
    keys = {tuple(column.key for column in table.columns) for table in tables}
    assert len(keys) == 1
    (record,) = bench_table(run(row("F16"))).records()
    assert record["ref"] == f"{MODEL}:F16"
    assert record["host"] == HOST["cpu"]
    assert (record["n_threads"], record["n_batch"], record["type_k"], record["mmap"]) == (2, 2048, "f16", True)
    assert (record["n_pp"], record["kv_bytes"], record["joules_per_token"]) == (10, 36_864 * SPEC.n_ctx, None)
    assert record["itl_ms"] < record["itl_p90_ms"] <= record["itl_p99_ms"]


@pytest.mark.parametrize(
    ("changes", "title", "texts"),
    [
        ({"n_threads": 4}, "threads", ["2", "4"]),
        ({"depth": 1024}, "depth", ["0", "1024"]),
        ({"type_k": "q8_0"}, "K", ["f16", "q8_0"]),
        ({"n_ubatch": 64}, "n_ubatch", ["512", "64"]),
        ({"mmap": False}, "mmap", ["yes", "no"]),
        ({"flash_attn": "on"}, "fa", ["auto", "on"]),
        ({"n_parallel": 4}, "parallel", ["1", "4"]),
        ({"n_gpu_layers": 1}, "ngl", ["-1", "1"]),
        ({"n_gen": 32}, "test", ["pp512 tg128", "pp512 tg32"]),
    ],
)
def test_a_setting_is_a_column_where_it_differs_and_a_note_where_not(
    changes: dict[str, object], title: str, texts: list[str]
) -> None:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    table = bench_table(run(row("F16"), row("F16", spec)))
    (added,) = set(titles(table)) - set(titles(bench_table(FOUR))) - {"pp tok/s", "tg tok/s"}
    assert added == title
    assert column(table, next(c.key for c in table.columns if c.title == title)) == texts
    assert title not in titles(bench_table(run(row("F16", spec))))


def test_what_is_common_is_one_line() -> None:
    common = bench_table(FOUR).notes[0]
    assert common == f"{MODEL}: 2 threads, n_batch 2048, n_ubatch 512, f16 KV cache, flash attention auto, mmap"
    assert "1 thread," in bench_table(run(row("F16", replace(SPEC, n_threads=1)))).notes[0]
    odd = replace(SPEC, type_k="q8_0", mmap=False, n_gpu_layers=9, n_parallel=4, prompt="Once upon a time")
    common = bench_table(run(row("F16", odd))).notes[0]
    for said in ("4 sequences at once", "9 layers on the GPU", "q8_0 K, f16 V", "no mmap", "prompt "):
        assert said in common


def test_every_trouble_is_named_below_the_table() -> None:
    repeated = replace(NOISY_ROW, blocks=(*NOISY_ROW.blocks, replace(NOISY_ROW.blocks[0], counted=False)))
    warned = replace(row("Q4_0"), warnings=("made for 128 tokens",))
    notes = bench_table(run(row("F16"), FAILED, repeated, warned, warnings=("it was busy",))).notes
    assert 'Q8_0: no <b>memory</b> | "left" & gone; allow it more: `--max-rss`' in notes
    assert f"Q4_K_M is noisy: {BUSY}" in notes
    assert "Q4_K_M: disturbed, and left out: 1 of 3 processes" in notes
    assert "it was busy" in notes
    assert "made for 128 tokens" in notes


def test_a_row_that_failed_is_dashes_and_says_so() -> None:
    table = bench_table(run(row("F16"), FAILED))
    assert [cell.text for cell in table.for_people().rows[1]][2:] == ["–"] * 7 + ["failed"]
    record = table.records()[1]
    assert (record["state"], record["error"]) == ("failed", 'no <b>memory</b> | "left" & gone')
    only = bench_table(run(FAILED))
    assert titles(only) == ["type", "size", "state"]


def test_what_one_is_beside_another_is_the_first_note() -> None:
    grid = [row(variant, replace(SPEC, n_threads=n)) for n in (1, 2) for variant in ("Q4_0", "F16")]
    against = list(versus(run(*grid), "sha256:F16"))
    first, second, common, *_ = bench_table(run(*grid), against=against).notes
    assert first.startswith("Q4_0, threads 1 beside F16: pp512: 2.89 ± ")
    assert second.startswith("Q4_0, threads 2 beside F16: pp512: 2.89 ± ")
    assert second.endswith("; size: 66.4 % smaller")
    assert common.startswith(MODEL)
    assert f"<li>{first}</li>" in bench_page(run(*grid), against=against)
    (alone,) = versus(run(FAILED, *grid[:1], row("F16", grid[0].spec)), "sha256:F16")  # a failed one has no verdict
    assert alone.subject.ref == f"{MODEL}:Q4_0"


def test_no_rows_are_no_table() -> None:
    assert bench_table(run()).rows == ()
    assert render(bench_table(run()), "json") == "[]\n"


def test_the_interpreter_is_named() -> None:
    (note,) = [note for note in bench_table(run(row("F16"))).notes if "interpreter" in note]
    peak = row("F16").memory
    assert peak is not None
    assert peak.peak_rss is not None
    assert "38.0 MiB of it the interpreter" in note
    assert f"{(peak.peak_rss - 38 * MIB) / MIB:.1f} MiB without them" in note


def test_shares_of_the_ceiling() -> None:
    """40 tok/s x 272 MB of 21.3 GB/s, and 412 tok/s x 2 x 134.5M of 380 GFLOP/s."""
    (entry,) = Entries.of(run(row("F16"))).entries
    n_bytes = SIZES["F16"] - MIB + 36_864 * SPEC.n_ctx * 64 / 768
    assert tg_of_max(entry) == pytest.approx((stats.mean(entry.row.tg_rates) or 0) * n_bytes / 21.3e9)
    assert pp_of_max(entry) == pytest.approx(412 * 2 * 134_515_008 / 380e9, rel=0.01)
    four = replace(SPEC, n_parallel=4)  # four tokens for each reading of the weights
    (together,) = Entries.of(run(row("F16", four))).entries
    assert tg_of_max(together) == pytest.approx(tg_of_max(entry))
    (unknown,) = Entries.of(run(row("F16"), machine={})).entries
    assert tg_of_max(unknown) is pp_of_max(unknown) is None
    assert "tg of max" not in titles(bench_table(run(row("F16"), machine={})))


def test_at_depth_the_cache_is_read_for_each_token_too() -> None:
    deep = replace(SPEC, depth=4096)
    (entry,) = Entries.of(run(row("F16", deep))).entries
    memory = entry.row.memory
    assert memory is not None
    assert memory.kv is not None
    assert deep.n_cells == 4864  # 4096 + 512 + 33, as the engine rounds it up
    assert entry.row.bytes_per_step == SIZES["F16"] - MIB + memory.kv * (4096 + 64) / 4864
    own = replace(entry.row, spec=replace(deep, prompt="Once upon a time"))
    assert own.bytes_per_step == own.bytes_per_token  # nobody knows how large its context was
    unread = replace(entry.row, blocks=(block("F16", deep, memory=None),))
    assert unread.bytes_per_step == unread.bytes_per_token


def test_several_models_have_their_names_and_several_hosts_a_column() -> None:
    other = row("F16", model="unsloth/gemma-3-270m-it")
    assert column(bench_table(run(row("F16"), other)), "ref") == [f"{MODEL}:F16", "unsloth/gemma-3-270m-it:F16"]
    table = bench_table(run(row("F16")), run(row("F16"), host=PI))
    assert column(table, "host") == ["Intel Xeon, 2 cores", "Raspberry Pi 5 (Cortex-A76), 4 cores"]
    assert [record["host"] for record in table.records()] == [HOST["cpu"], PI["cpu"]]
    assert sum("of memory bandwidth" in note for note in table.notes) == 2
    more = bench_table(run(row("F16")), run(row("F16"), host={**HOST, "memory_bytes": 2**33}))
    assert column(more, "host") == ["15.00 GiB", "8.00 GiB"]  # only what differs


def test_another_engine_is_another_column() -> None:
    newer = replace(run(row("F16")), build={**BUILD, "llama.cpp": "b7000"}, source="llama-bench")
    table = bench_table(run(row("F16")), newer)
    assert column(table, "build") == ["0c1e57098", "b7000"]
    assert table.records()[1]["build"] == "llama-cpp-python 0.3.36 b7000"
    failed = replace(run(FAILED), build={})  # does not know its build, which is no difference
    assert "engine" not in titles(bench_table(run(row("F16")), failed))


def test_energy_is_shown_where_it_was_read() -> None:
    read = row("F16", joules={"tg": 5 * 128 * 0.25})
    table = bench_table(run(read, row("Q8_0")))
    assert column(table, "joules_per_token") == ["0.250", "–"]


def test_a_run_of_schema_1_and_one_of_another_program_have_tables() -> None:
    """They know less: one block without a state, no machine, no memory."""
    plain = replace(row("F16"), blocks=(Block(pp_ns=(10**9,), tg_ns=(10**9, 2 * 10**9)),), bytes_per_token=None)
    table = bench_table(BenchRun("2025-01-01T00:00:00+00:00", {}, {}, (plain,), source="llama-bench"))
    assert titles(table) == ["type", "size", "pp512 tok/s", "tg128 tok/s", "state"]
    assert column(table, "pp_tok_per_s") == ["512.00"]
    assert column(table, "tg_tok_per_s") == ["96.00 ± 45.25"]


@pytest.mark.parametrize("form", ["md", "html"])
def test_forms_for_people_leave_out_what_is_for_machines(form: str) -> None:
    text = render(bench_table(FOUR), form)
    assert "tg of max" in text
    assert "n_pg_prompt" not in text


def test_forms_for_machines_have_all() -> None:
    table = bench_table(FOUR)
    header, *records = csv.reader(io.StringIO(render(table, "csv")))
    assert header == [column.key for column in table.columns]
    assert len(records) == 4
    assert [*json.loads(render(table, "json"))[0]] == header
