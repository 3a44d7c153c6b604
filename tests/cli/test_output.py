"""The one sink: people, `--json`, `--quiet`, forms of tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit.cli.output import Output, current, open_output, write_report
from slmkit.cli.progress import TerminalProgress, reporter
from slmkit.core.progress import SILENT
from slmkit.errors import CannotWriteError, EngineCrashedError, NotInRegistryError, SlmkitError, UsageError
from slmkit.report.table import Cell, Column, Table

TABLE = Table(
    (Column("ref", "model", right=False), Column("size_bytes", "size")),
    ((Cell("a/b:Q4_0", "a/b:Q4_0"), Cell("1.0 KiB", 1024)), (Cell("[red]x[/]", "[red]x[/]"), Cell("–", None))),
    "models",
    ("a note [1]",),
)
Captured = pytest.CaptureFixture[str]


def test_a_table_for_people(capsys: Captured) -> None:
    Output().table(TABLE)
    out, err = capsys.readouterr()
    assert [line.rstrip() for line in out.splitlines()] == [
        "model         size",
        "a/b:Q4_0   1.0 KiB",
        "[red]x[/]        –",
        "a note [1]",
    ]
    assert err == ""


def test_a_table_without_rows_is_nothing_for_people_and_an_empty_list_for_machines(capsys: Captured) -> None:
    empty = Table(TABLE.columns, ())
    Output().table(empty)
    assert capsys.readouterr() == ("", "")
    Output(as_json=True).table(empty)
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("form", "beginning"),
    [("md", "| model "), ("csv", "ref,size_bytes\n"), ("jsonl", '{"ref": '), ("json", "[\n"), ("html", "<!doctype")],
)
def test_a_table_in_a_form(capsys: Captured, form: str, beginning: str) -> None:
    Output(form=form).table(TABLE)
    out, err = capsys.readouterr()
    assert out.startswith(beginning)
    assert err == ""


def test_json_wins_over_a_form(capsys: Captured) -> None:
    Output(as_json=True, form="csv").table(TABLE)
    assert json.loads(capsys.readouterr().out) == [
        {"ref": "a/b:Q4_0", "size_bytes": 1024},
        {"ref": "[red]x[/]", "size_bytes": None},
    ]


def test_an_unknown_form_is_refused_before_the_work_and_in_the_way_asked_for() -> None:
    with pytest.raises(UsageError, match="no format 'xml'"):
        open_output(as_json=True, form="xml")
    assert current().as_json


def test_a_long_row_in_a_pipe_is_one_line(capsys: Captured) -> None:
    Output().table(Table(TABLE.columns, ((Cell("x" * 300, ""), Cell("1 B", 1)),)))
    Output().record({}, "y" * 1000)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["model", "x" * 300, "y" * 1000]


@pytest.mark.parametrize("text", ["[bold]not markup[/]", "a :smile: b", "C:\\", "\\[x]", "ünï – ±"])
def test_text_is_printed_as_it_is(capsys: Captured, text: str) -> None:
    Output().record({}, text)
    Output().say(text)
    Output().error(SlmkitError(text, hint=text))
    out, err = capsys.readouterr()
    assert out == f"{text}\n"
    assert err == f"{text}\nerror: {text}\nhint: {text}\n"


def test_a_record(capsys: Captured) -> None:
    Output().record({"name": "ü"}, "for people")
    assert capsys.readouterr() == ("for people\n", "")
    Output(as_json=True).record({"name": "ü"}, "for people")
    assert capsys.readouterr() == ('{\n "name": "ü"\n}\n', "")
    Output(quiet=True).record({"name": "ü"}, "for people")
    assert capsys.readouterr() == ("for people\n", "")


@pytest.mark.parametrize(
    ("speak", "people", "quiet", "as_json"),
    [
        (lambda o: o.say("x"), "x\n", "", ""),
        (lambda o: o.hint("x"), "hint: x\n", "", ""),
        (lambda o: o.warn("x"), "warning: x\n", "warning: x\n", ""),
    ],
)
def test_remarks(capsys: Captured, speak: Callable[[Output], None], people: str, quiet: str, as_json: str) -> None:
    for output, expected in ((Output(), people), (Output(quiet=True), quiet), (Output(as_json=True), as_json)):
        speak(output)
        assert capsys.readouterr() == ("", expected)


def test_an_error(capsys: Captured) -> None:
    error = NotInRegistryError("no a/b here", hint="`slmkit list`")
    for output in (Output(), Output(quiet=True)):
        output.error(error)
        assert capsys.readouterr() == ("", "error: no a/b here\nhint: `slmkit list`\n")
    Output(as_json=True).error(error)
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {"error": "registry.not-found", "message": "no a/b here", "hint": "`slmkit list`"}
    assert err.count("\n") == 1


def test_an_error_without_hint_and_one_with_a_log(capsys: Captured) -> None:
    error = EngineCrashedError("it died", log=("last words",))
    Output().error(error)
    assert capsys.readouterr().err == "error: it died\n"
    Output(as_json=True).error(error)
    assert json.loads(capsys.readouterr().err) == {
        "error": "engine.crashed",
        "message": "it died",
        "hint": None,
        "log": ["last words"],
    }


@pytest.mark.parametrize("suffix", ["md", "csv", "json", "jsonl", "html", "HTML"])
def test_a_report_has_the_form_of_its_suffix(tmp_path: Path, capsys: Captured, suffix: str) -> None:
    write_report(TABLE, tmp_path / f"x.{suffix}")
    Output(form=suffix.lower()).table(TABLE)
    assert (tmp_path / f"x.{suffix}").read_text(encoding="utf-8") == capsys.readouterr().out


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match="No such file or directory"):
        write_report(TABLE, tmp_path / "no" / "x.md")


def test_progress_in_a_pipe_is_remarks_only(capsys: Captured) -> None:
    progress = reporter(Output())
    assert isinstance(progress, TerminalProgress)
    with progress.task("quick", 3, "tensors") as task:
        task.set_total(4)
        task.advance()
    progress.say("said")
    progress.warn("warned")
    assert capsys.readouterr() == ("", "said\nwarning: warned\n")


@pytest.mark.parametrize("output", [Output(quiet=True), Output(as_json=True)])
def test_progress_is_silent_when_asked(output: Output) -> None:
    assert reporter(output) is SILENT
