"""The one sink: people, `--json`, `--quiet`, forms of tables."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress

import pytest

from slmkit.cli.output import Output, current, open_output
from slmkit.cli.progress import TerminalProgress, reporter
from slmkit.core.progress import SILENT
from slmkit.errors import EngineCrashedError, NotInRegistryError, SlmkitError, UsageError
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


def test_progress_in_a_pipe_is_remarks_only(capsys: Captured) -> None:
    progress = reporter(Output())
    assert isinstance(progress, TerminalProgress)
    with progress.task("quick", 3, "tensors") as task:
        task.set_total(4)
        task.describe("nobody sees this")
        task.advance()
    progress.say("said")
    progress.warn("warned")
    assert capsys.readouterr() == ("", "said\nwarning: warned\n")


@pytest.mark.parametrize("output", [Output(quiet=True), Output(as_json=True)])
def test_progress_is_silent_when_asked(output: Output) -> None:
    assert reporter(output) is SILENT


def test_a_terminal_shows_what_is_being_done_how_far_it_is_and_how_long_it_takes() -> None:
    """In a terminal of its own (a pty), as a user has it; names with brackets and braces are no markup."""
    script = """
from slmkit.cli.output import Output
from slmkit.cli.progress import reporter
with reporter(Output()).task("bench [a]{b}", 6, "steps") as task:
    for n in range(2):
        task.describe(f"[a]{{b}} tg128, {n + 0.5} tok/s")
        task.advance()
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")} | {"TERM": "xterm"}
    done = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # Linux says so when the other end is closed
        while part := os.read(ours, 4096):
            seen += part
    assert done.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert "bench [a]{b} " in text
    assert "[a]{b} tg128, 0.5 tok/s" in text
    assert re.search(r"tg128, 1\.5 tok/s .*2/6 .*\d:\d\d:\d\d left", text)
