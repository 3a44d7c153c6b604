"""Reports as files: the suffix decides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from slmkit.errors import CannotWriteError, UsageError
from slmkit.report.bench import bench_table
from slmkit.report.files import check_report, write_bench, write_comparison
from slmkit.report.html import bench_page, compare_page
from slmkit.report.table import render
from slmkit.report.tables import compare_table

from .benches import COMPARISON, FOUR


@pytest.mark.parametrize("suffix", ["md", "csv", "json", "jsonl", "MD"])
def test_a_table_has_the_form_of_its_suffix(tmp_path: Path, suffix: str) -> None:
    write_bench(FOUR, tmp_path / f"a.{suffix}")
    write_comparison(COMPARISON, tmp_path / f"b.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_text(encoding="utf-8") == render(bench_table(FOUR), suffix.lower())
    assert (tmp_path / f"b.{suffix}").read_text(encoding="utf-8") == render(compare_table(COMPARISON), suffix.lower())


def test_html_is_the_whole_page(tmp_path: Path) -> None:
    write_bench(FOUR, tmp_path / "a.HTML")
    write_comparison(COMPARISON, tmp_path / "b.html", "my recipe")
    assert (tmp_path / "a.HTML").read_text(encoding="utf-8") == bench_page(FOUR)
    assert (tmp_path / "b.html").read_text(encoding="utf-8") == compare_page(COMPARISON, "my recipe")
    assert "<h1>my recipe</h1>" in (tmp_path / "b.html").read_text(encoding="utf-8")


def test_svg_and_png_are_pictures(tmp_path: Path) -> None:
    write_bench(FOUR, tmp_path / "a.svg")
    write_comparison(COMPARISON, tmp_path / "b.PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "b.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.htm"])
def test_another_suffix_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"cannot write {re.escape(name)}") as caught:
        check_report(tmp_path / name)
    assert str(caught.value.hint).endswith(".md, .csv, .json, .jsonl, .html, .svg, .png")
    with pytest.raises(UsageError):
        write_bench(FOUR, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    for name in ("a.md", "a.html", "a.svg"):
        check_report(tmp_path / name)
        with pytest.raises(CannotWriteError, match="No such file or directory"):
            write_bench(FOUR, tmp_path / "no" / name)


def test_json_is_for_machines(tmp_path: Path) -> None:
    write_bench(FOUR, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))[2]["state"] == "noisy"
