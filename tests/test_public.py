"""What the house promises about itself: public names, the tree of errors, docstrings, small modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import slmkit
from slmkit import errors

SRC = Path(slmkit.__file__).parent
MODULES = sorted(SRC.rglob("*.py"))
MOST_LINES = 400


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def test_the_public_names_are_sorted_and_there() -> None:
    assert slmkit.__all__ == sorted(slmkit.__all__)
    assert dir(slmkit) == slmkit.__all__
    for name in slmkit.__all__:
        assert getattr(slmkit, name).__doc__, name


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = slmkit.nonsense


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((SRC / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slmkit")
        for alias in node.names
    }
    assert imported == set(slmkit.__all__)
    assert (SRC / "py.typed").is_file()


# ------------------------------------------------------------------ the tree of errors

_ROW = re.compile(r"^(?P<lines>[│├└─ ]*)(?P<name>\w+Error)\s+(?P<exit>\d+)\s+(?P<code>[\w.-]+)")


def drawn() -> list[tuple[str, str | None, int, str]]:
    """Name, parent, exit code and code of each error in the drawing."""
    rows: list[tuple[str, str | None, int, str]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := _ROW.match(line):
            depth = len(match["lines"]) // 4
            above[depth:] = [match["name"]]
            rows.append((match["name"], above[depth - 1] if depth else None, int(match["exit"]), match["code"]))
    return rows


def classes(base: type[errors.SlmkitError] = errors.SlmkitError) -> Iterator[type[errors.SlmkitError]]:
    yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child)


def test_the_drawing_is_the_tree() -> None:
    real = {(c.__name__, c.__base__.__name__ if c.__base__ else None, c.exit_code, c.code) for c in classes()}
    shown = {(name, parent or "Exception", exit_code, code) for name, parent, exit_code, code in drawn()}
    assert shown == real
    assert len(drawn()) == len(shown)


def test_codes_are_unique_and_say_where_they_belong() -> None:
    codes = [code for _, _, _, code in drawn()]
    assert len(set(codes)) == len(codes)
    by_name = {name: code for name, _, _, code in drawn()}
    for name, parent, _, code in drawn():
        if parent not in (None, "SlmkitError"):
            assert code.startswith(f"{by_name[parent or '']}."), name


def test_every_error_is_raised_somewhere() -> None:
    """An error that nobody raises is a promise that nobody keeps; bases are for catching."""
    text = "".join(path.read_text(encoding="utf-8") for path in MODULES if path.name != "errors.py")
    bases = {parent for _, parent, _, _ in drawn()}
    unused = [name for name, _, _, _ in drawn() if name not in bases and not re.search(rf"\b{name}\(", text)]
    assert unused == []


# ------------------------------------------------------------------ every module


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes without underscore, and the public methods of such classes; not what overrides."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                        yield inner


OVERRIDES = {"cli/app.py": {"invoke"}}
"""Methods whose contract is written down where they come from."""


BROAD: dict[str, int] = {}
"""Handlers of `Exception`, by module."""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_keeps_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MOST_LINES, "two modules, then"
    if tree.body:
        assert ast.get_docstring(tree), "what is it for?"
    exempt = OVERRIDES.get(name_of(path), set())
    assert [n.name for n in public(tree) if n.name not in exempt and not ast.get_docstring(n)] == []

    broad, loud = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {c.id for c in caught if isinstance(c, ast.Name)}
            passes_on = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if node.type is None or "Exception" in names or ("BaseException" in names and not passes_on):
                broad.append(node.lineno)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("print", "input", "exit", "breakpoint"):
            loud.append(node.lineno)
    assert len(broad) == BROAD.get(name_of(path), 0), f"name what can happen: {broad}"
    if not name_of(path).startswith("cli/"):
        assert loud == [], "only the command line speaks"


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [name_of(path) for path in MODULES if set(path.with_suffix("").parts) & drawers] == []
