"""The documents say what the code does: made pages are fresh, links lead somewhere, commands exist, examples run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from slmkit.cli.app import app
from slmkit.core.bench import SCHEMA, BenchRow, BenchRun, Block, Memory

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + DOCS
WITH_COMMANDS = [ROOT / "README.md", *DOCS]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`(slmkit [^`]+)`")
_TYPED = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S* )*(?:\.venv/bin/)?(slmkit [a-z-].*)$", re.MULTILINE)
_SHELL = ("|", "&&", ";", ">", ">>", "2>", "#")


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = (re.sub(r"[^\w\- ]", "", title.lower()).strip() for title in _HEADING.findall(text))
    return {title.replace(" ", "-") for title in titles}


def _fenced(page: Path) -> Iterator[str]:
    """Command lines in code blocks, with prompt, environment and what a shell would do with them cut off."""
    for _, block in _FENCE.findall(page.read_text(encoding="utf-8")):
        yield from _TYPED.findall(block.replace("\\\n", " "))


def _words(line: str) -> list[str]:
    words = shlex.split(line)[1:]
    end = next((i for i, word in enumerate(words) if word in _SHELL or word.startswith("#")), len(words))
    return words[:end]


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what is left for it."""
    command: Any = typer.main.get_command(app)
    while words and words[0][0].islower() and hasattr(command, "commands"):  # COMMAND stands for any
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def _check_options(line: str) -> None:
    command, words = _command(_words(line))
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}
    for word in words:
        name = word.partition("=")[0].rstrip("]").lstrip("[")
        if name.startswith("-") and not name.lstrip("-").isdigit() and name != "-":
            assert name in known, f"`{line}`: no option {name}"


def test_made_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "docs"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr


def test_made_pages_do_not_depend_on_the_terminal() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "docs"), "--check"]
    env = {**os.environ, "COLUMNS": "40", "FORCE_COLOR": "1", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), f"{_id(page)}: {target}"
        if anchor and to.suffix == ".md":
            assert anchor in _anchors(to), f"{_id(page)}: {target}"


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=_id)
def test_commands_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in (*_fenced(page), *_INLINE.findall(text)):
        _check_options(line)


@pytest.mark.parametrize("page", [p for p in WITH_COMMANDS if p.name != "cli.md"], ids=_id)
def test_command_lines_in_code_blocks_can_be_typed_as_they_are(page: Path) -> None:
    """Nothing is run: each line only goes through the parser, as far as the command's own function."""
    for line in _fenced(page):
        command, words = _command(_words(line))
        if not hasattr(command, "commands"):
            command.make_context(command.name, list(words))


def test_every_room_is_in_the_picture() -> None:
    """The table of rooms in architecture.md has all packages of slmkit once, and none that is not there; each has all
    its modules but for families that are found by themselves, and none that is not there.
    """
    source = ROOT / "src" / "slmkit"
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_/]+)/` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    there = {p.parent.relative_to(source).as_posix() for p in source.rglob("__init__.py")} - {"."}
    assert set(dict(rows)) - {"data"} == there
    for room in there - {"cli", "ops/convert/arch", "ops/convert/dequantize"}:
        modules = {path.stem for path in (source / room).glob("*.py")} - {"__init__"}
        assert set(re.findall(r"`([a-z_0-9]+)`", dict(rows)[room])) == modules, room


def test_a_run_is_described_as_it_is_written() -> None:
    """Every key of a run, its rows, their blocks and the memory of these."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    described = text.partition("\n## Runs\n")[2].partition("\n## ")[0]
    assert f"schema {SCHEMA}:" in described
    keys = {field.name for kind in (BenchRun, BenchRow, Block, Memory) for field in fields(kind)}
    assert {key for key in keys if f"`{key}`" not in described} == set()


def test_the_python_example_runs(checkpoint: Path, tmp_path: Path) -> None:
    """The guide's example, with the tiny model of the tests in the place of one from the Hub."""
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (example,) = (block for language, block in _FENCE.findall(text) if language == "python")
    assert example.count('"smollm2-135m"') == 1
    quick = example.replace("repetitions=3", "repetitions=1, n_threads=1")
    script = tmp_path / "example.py"
    script.write_text(quick.replace('"smollm2-135m"', repr(str(checkpoint))), encoding="utf-8")
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert "Q4_0" in found.stdout
