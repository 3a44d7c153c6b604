"""Tables from values built by hand, against whole expected texts."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.bench import BenchRow, BenchSpec, Block, Failure, Memory
from slmkit.core.compare import CompareRow, Comparison
from slmkit.errors import UsageError
from slmkit.report.bench import bench_table
from slmkit.report.table import FORMS, Cell, Column, Table, render
from slmkit.report.tables import Quantized, artifacts_table, compare_table, quantize_table

from . import benches

GOLDEN = Path(__file__).parent / "golden"
MIB = 2**20
SPEC = BenchSpec(n_prompt=512, n_gen=128, n_threads=2)


def measured(ref: str, size_bytes: int, pp_s: float, tg_s: float) -> BenchRow:
    return BenchRow(
        ref=ref,
        digest=f"sha256:{ref}",
        size_bytes=size_bytes,
        spec=SPEC,
        blocks=(
            Block(
                load_ns=123_456_789,
                pp_ns=tuple(int(pp_s * 1e9 * f) for f in (1.0, 1.1, 0.9)),
                tg_ns=tuple(int(tg_s * 1e9 * f) for f in (1.0, 1.02, 0.98)),
                ttft_ns=(1_300_000_000, 1_310_000_000, 1_900_000_000),
                memory=Memory(40 * MIB, 400 * MIB, 300 * MIB, 100 * MIB),
            ),
        ),
    )


F16 = measured("org/m:F16", 256 * MIB, 2.0, 4.0)
Q4 = replace(measured("org/m:Q4_0", 77 * MIB + 1, 1.0, 2.0), warnings=("org/m:Q4_0: tg128 varies by 9%",))
FAILED = BenchRow(
    "org/m|x:Q8_0", "sha256:q8", 136 * MIB, SPEC, failure=Failure("engine.crashed", "it crashed\n<SIGSEGV> | & gone")
)
COMPARISON = Comparison(
    rows=(
        CompareRow("org/m:F16", "org/m", "F16", 256 * MIB, 0.0, 16.004, F16, is_baseline=True),
        CompareRow("org/m:Q8_0", "org/m", "Q8_0", 136 * MIB, 0.46875, 8.5, None),
        CompareRow("org/m:Q4_0", "org/m", "Q4_0", 77 * MIB + 1, 0.69921875, 4.813, Q4),
        CompareRow("org/m:F32", "org/m", "F32", 512 * MIB, -1.0, 32.0, None),
    ),
    spec=SPEC,
    missing=("slmkit bench org/m:Q8_0 org/m:F32",),
    notes=("2 older measurements were made under other conditions and are left out",),
)
NO_BASELINE = Comparison(
    rows=(
        CompareRow("org/m:Q4_0", "org/m", "Q4_0", 77 * MIB, None, 4.813, None),
        CompareRow("two/<n>:Q4_0", "two/<n>", "Q4_0", 77 * MIB, None, None, None),
    ),
    spec=None,
    missing=(),
)
TABLES = {
    "bench": bench_table(benches.FOUR),
    "bench-failed": bench_table(benches.run(benches.row("F16"), FAILED)),
    "bench-wide": bench_table(benches.FOUR, wide=True),
    "compare": compare_table(COMPARISON),
    "compare-models": compare_table(NO_BASELINE),
    "compare-quality": compare_table(benches.JUDGED),
    "quantize": quantize_table(
        [
            Quantized("org/m:Q4_0", "Q4_0", 1000 * MIB, 300 * MIB, 4.8129, 0.79, 0.0, True),
            Quantized("org/m:Q4_K_M", "Q4_K_M", 1000 * MIB, 450 * MIB, None, 0.12, 0.6149, False),
            Quantized("org/m:Q5_1", "Q5_1", 1000 * MIB, 500 * MIB, 6.0, None, None, False),
        ],
        notes=["Q4_K_M: 12.0 % of the parameters are Q4_K; 61.5 % fell back to Q5_0"],
    ),
    "list": artifacts_table(
        [
            Artifact(
                "org/m",
                None,
                Path("/c"),
                (File("a", 1024, "aa"), File("b", 512, "bb")),
                False,
                Provenance("pull"),
                "2026-01-02T03:04:05+00:00",
            ),
            Artifact(
                "org/m",
                "Q4_0",
                Path("/m"),
                (File("m-Q4_0.gguf", 3 * 2**30, "cc"),),
                True,
                Provenance("quantize"),
                "2026-01-02T03:05:00+00:00",
                {"n_params": 5_000_000_000, "bpw": 4.813},
            ),
        ]
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_it_was(name: str, form: str) -> None:
    """Golden texts: after a wanted change, look at `git diff tests/report/golden` before committing it."""
    golden = GOLDEN / f"{name}.{form}"
    assert render(TABLES[name], form) == golden.read_text(encoding="utf-8")


def test_every_golden_text_is_used() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.{form}" for name in TABLES for form in FORMS}


def test_a_comparison_says_which_of_its_numbers_are_not_to_be_trusted() -> None:
    assert f"Q4_K_M is noisy: {benches.BUSY}" in compare_table(benches.COMPARISON).notes


def test_quality_that_was_not_measured_is_a_dash() -> None:
    rows = tuple(replace(row, quality=None) if row.variant == "Q4_0" else row for row in benches.JUDGED.rows)
    table = compare_table(replace(benches.JUDGED, rows=rows))
    assert [cell.value for cell in table.rows[3][-8:-1]] == [None] * 7
    only = replace(benches.JUDGED, rows=tuple(replace(row, is_best=False) for row in rows))
    assert "best" not in [column.key for column in compare_table(only).columns]


def test_models_of_unlike_tokenizers_are_not_compared_by_perplexity() -> None:
    other = replace(benches.JUDGED.rows[1], model="org/n", ref="org/n:Q8_0")
    notes = compare_table(replace(benches.JUDGED, rows=(*benches.JUDGED.rows, other))).notes
    assert any("perplexities of unlike tokenizers cannot be compared" in note for note in notes)


def test_an_unknown_form_names_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        render(TABLES["list"], "xml")
    assert caught.value.hint == "one of md, csv, json, jsonl, html"


def test_unknown_is_a_dash_for_people_and_nothing_for_machines() -> None:
    table = TABLES["compare"]
    unmeasured = table.rows[1]
    assert [cell.text for cell in unmeasured[4:]] == ["–"] * 4
    assert [cell.value for cell in unmeasured[4:]] == [None] * 4
    assert "–" not in render(table, "csv") + render(table, "json") + render(table, "jsonl")


characters = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.sampled_from("|\\\n<>&\"',")
texts = st.text(characters, max_size=12)


def table_of(cells: list[list[str]]) -> Table:
    columns = (Column("a", "A"), Column("b", "B", right=False))
    return Table(columns, tuple(tuple(Cell(text, text) for text in row) for row in cells))


rows_of_two = st.lists(st.lists(texts, min_size=2, max_size=2), min_size=1, max_size=4)


@given(rows_of_two)
def test_markdown_has_one_line_for_each_row_and_as_many_cells_as_columns(cells: list[list[str]]) -> None:
    lines = render(table_of(cells), "md").split("\n")
    assert len(lines) == len(cells) + 3
    for line in lines[:-1]:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3


def test_a_backslash_before_a_pipe_does_not_free_it() -> None:
    row = render(table_of([["\\|", "a|b\\"]]), "md").split("\n")[2]
    assert row.split() == ["|", r"\\\|", "|", r"a\|b" + "\\", "|"]


@given(rows_of_two)
def test_machines_read_back_what_was_written(cells: list[list[str]]) -> None:
    table = table_of(cells)
    records = table.records()
    assert json.loads(render(table, "json")) == records
    assert [json.loads(line) for line in render(table, "jsonl").split("\n")[:-1]] == records
    assert list(csv.reader(io.StringIO(render(table, "csv"), newline="")))[1:] == cells


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td":
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


@given(rows_of_two)
def test_html_escapes_whatever_is_in_a_cell(cells: list[list[str]]) -> None:
    parser = _Cells()
    parser.feed(render(table_of(cells), "html"))
    assert parser.texts == [text for row in cells for text in row]
