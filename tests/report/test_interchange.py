"""The forms of other programs, beside those programs where they are here."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.bench import BenchSpec
from slmkit.errors import UsageError
from slmkit.formats.runs import parse
from slmkit.report.benchstat import benchstat
from slmkit.report.interchange import FORMS, interchange, left_out
from slmkit.report.llama_bench import FIELDS, llama_bench
from tests.measured import BUILD, FAILED, HOST, SPEC, row, run

RUN = run(
    row(spec=replace(SPEC, n_pg_prompt=64, n_pg_gen=16)), row("org/m:F16", spec=replace(SPEC, depth=4096)), FAILED
)


def in_sqlite(text: str) -> list[dict[str, Any]]:
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    database.executescript(text)
    return [dict(found) for found in database.execute("SELECT * FROM llama_bench")]


def in_markdown(text: str) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


PARSERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "csv": lambda text: list(csv.DictReader(io.StringIO(text))),
    "sql": in_sqlite,
    "md": in_markdown,
}


@pytest.mark.parametrize("form", PARSERS)
def test_what_llama_bench_prints_comes_out_as_it_came_in(llama_bench: Path, f16: Path, form: str) -> None:
    """The same keys in the same order, the same types, and the same values but for the model's name: from the samples
    of its own JSON, which goes to stderr meanwhile.
    """
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
        "3",
        "-t",
        "1",
        "-fa",
        "on",
    ]
    done = subprocess.run(
        [*command, "-o", form, "-oe", "jsonl"], check=True, capture_output=True, text=True, timeout=120
    )
    theirs = PARSERS[form](done.stdout)
    measured = "".join(line + "\n" for line in done.stderr.splitlines() if line.startswith("{"))
    ours = PARSERS[form](interchange(parse(measured.encode()), f"llama-bench:{form}"))
    assert [list(found) for found in ours] == [list(found) for found in theirs]
    for mine, found in zip(ours, theirs, strict=True):
        for key, value in found.items():
            assert type(mine[key]) is type(value), key
            if key == "stddev_ns":  # theirs is computed in integers
                assert int(mine[key]) == pytest.approx(int(value), rel=0.01, abs=20_000)
            elif key == "avg_ts":
                assert float(mine[key]) == pytest.approx(float(value), rel=1e-6)
            elif key in ("t/s", "stddev_ts", "samples_ts"):
                assert numbers(mine[key]) == pytest.approx(numbers(value), rel=0.001, abs=0.02)
            elif key not in ("model", "model_filename", "model_type", "test_time"):
                assert mine[key] == value, key
    if form == "md":
        assert interchange(parse(measured.encode()), "llama-bench:md").splitlines()[1] == done.stdout.splitlines()[1]


def numbers(value: Any) -> list[float]:
    return [float(found) for found in re.findall(r"[\d.]+", str(value))]


@pytest.mark.parametrize("form", [form for form in PARSERS if form != "md"])
def test_our_runs_have_their_fields_and_nothing_made_up(form: str) -> None:
    found = PARSERS[form](llama_bench([RUN], form))
    assert all(list(record)[: len(FIELDS)] == list(FIELDS) for record in found)
    shapes = [(int(r["n_prompt"]), int(r["n_gen"]), int(r["n_depth"])) for r in found]
    assert shapes == [(512, 0, 0), (0, 128, 0), (64, 16, 0), (512, 0, 4096), (0, 128, 4096)]
    first = found[0]
    assert (first["build_commit"], first["backends"], first["model_type"]) == ("0c1e570", "CPU", "org/m:Q4_0")
    assert float(first["avg_ts"]) == pytest.approx(510.9, abs=0.1)
    assert first["test_time"] == "2026-11-24T10:00:00Z"
    bare = PARSERS[form](llama_bench([run(replace(row(), n_params=None), host={}, build={})], form))[0]
    unknown = [bare[name] for name in ("build_commit", "build_number", "cpu_info", "gpu_info", "backends")]
    assert [str(value) for value in unknown] == ["", "0", "", "", ""]
    assert str(bare["model_n_params"]) == "0"


@pytest.mark.parametrize("form", PARSERS)
def test_names_with_quotes_do_not_break_out(form: str) -> None:
    name = './it\'s "q", \\x.gguf'
    found = PARSERS[form](llama_bench([run(row(name))], form))
    assert len(found) == 2
    assert found[0]["model" if form == "md" else "model_filename"] == name


def test_markdown_has_the_columns_that_are_not_llama_cpp_s_own() -> None:
    (plain, *_) = in_markdown(llama_bench([run()], "md"))
    assert list(plain) == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    odd = BenchSpec(n_threads=2, n_batch=64, type_k="q8_0", flash_attn="on", mmap=False)
    (first, *_) = in_markdown(llama_bench([run(row(spec=odd))], "md"))
    assert [first[key] for key in ("n_batch", "type_k", "fa", "lm", "test")] == ["64", "q8_0", "1", "none", "pp512"]


def test_what_llama_bench_has_no_words_for_is_named() -> None:
    several = row(spec=replace(SPEC, n_parallel=4))
    assert left_out([RUN], "benchstat") == []
    reasons = left_out([run(several, FAILED)], "llama-bench:json")
    assert [reason.partition(" ")[0] for reason in reasons] == ["org/m:Q8_0", "org/m:Q4_0"]
    assert json.loads(llama_bench([run(several, FAILED)], "json")) == []


BENCHMARK = re.compile(r"Benchmark[A-Z]\w*(/\w+=[^/\s]+)+ 1( [\d.e+]+ [\w/-]+)+")


def test_benchstat_lines_are_benchmarks_units_and_configuration() -> None:
    lines = benchstat([RUN, run(host={**HOST, "cpu": "Two\nLines"}), run(host={})]).splitlines()
    benchmarks = [line for line in lines if line.startswith("Benchmark")]
    assert all(BENCHMARK.fullmatch(line) for line in benchmarks)
    assert sum(" tok/s" in line for line in benchmarks) == 4 * (2 + 1 + 2 + 2 + 2)  # a line for each sample
    others = [line for line in lines if line and line not in benchmarks]
    assert all(re.fullmatch(r"Unit \S+ better=(higher|lower)|[a-z.]+:( \S.*)?", line) for line in others)
    assert [line for line in others if line.startswith("cpu:")] == ["cpu: One CPU", "cpu: Two Lines", "cpu:"]
    assert f"llama.cpp: {BUILD['llama.cpp']}" in others


def names(*specs: BenchSpec) -> list[set[str]]:
    """Of the benchmarks of each."""
    every = [benchstat([run(row(spec=spec))]).splitlines() for spec in specs]
    return [{line.split()[0] for line in lines if line.startswith("Benchmark")} for lines in every]


def test_what_was_measured_otherwise_has_another_name_for_benchstat() -> None:
    one, other, plain = names(replace(SPEC, prompt="Once"), replace(SPEC, prompt="Twice"), SPEC)
    assert not one & other
    assert not one & plain
    assert one == names(replace(SPEC, prompt="Once"))[0]
    memory, longer, both = (
        {name for name in found if name.startswith("BenchmarkMemory/")}
        for found in names(SPEC, replace(SPEC, n_gen=64), replace(SPEC, n_pg_prompt=64, n_pg_gen=16, depth=9))
    )
    assert len(memory | longer | both) == 3
    (name,) = both
    assert "/test=pp512_tg128_pp64+tg16@d9/" in name


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(UsageError, match="no form 'xml'") as caught:
        interchange([RUN], "xml")
    assert all(form in str(caught.value.hint) for form in FORMS)
    with pytest.raises(UsageError, match="'xml'"):
        llama_bench([RUN], "xml")
