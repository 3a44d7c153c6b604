"""A check as a table, as Markdown for a CI's summary, and as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from slmkit.core import units
from slmkit.core.check import INCONCLUSIVE, PASS, REGRESSION, UNMEASURED, Check, Judgement
from slmkit.report.table import Cell, Column, Table, markdown

_MARKS = {PASS: "✅", REGRESSION: "❌", INCONCLUSIVE: "❔", UNMEASURED: "⚠️"}
_COLUMNS = (
    Column("ref", "model", right=False),
    Column("test", "test", right=False),
    Column("baseline", "baseline"),
    Column("now", "now"),
    Column("text", "change", right=False),
    Column("criterion", "limit", right=False),
    Column("verdict", "verdict", right=False),
)

_SHOWN: dict[str, Callable[[float], str]] = {
    "peak RSS": units.size,
    "size": units.size,
    "TTFT": units.milliseconds,
    "KLD": "{:.4f}".format,
    "PPL ratio": "{:.4f}".format,
    "same top": units.percent,
}
"""How the values of a test are written; of all others with two digits."""


def check_table(check: Check) -> Table:
    """A row for each judgement; what has to be known of them stands below."""
    return Table(_COLUMNS, tuple(_cells(j, j.verdict) for j in check.judgements), "check", check.notes)


def check_markdown(check: Check) -> str:
    """For `$GITHUB_STEP_SUMMARY`: headed by the verdict."""
    rows = tuple(_cells(j, f"{_MARKS[j.verdict]} {j.verdict}") for j in check.judgements)
    table = markdown(Table(_COLUMNS, rows, notes=check.notes))
    return f"### {_MARKS[check.verdict]} slmkit check: {check.verdict}\n\n{check.summary}\n\n{table}\n"


def junit(check: Check, *, allow_inconclusive: bool = False) -> str:
    """One test case for each row and criterion: a regression is a failure, what was not decided is an error.

    With `allow_inconclusive` the undecided is skipped. The elements are those that CI systems agree on:
    https://github.com/testmoapp/junitxml
    """
    undecided = "skipped" if allow_inconclusive else "error"
    elements = {REGRESSION: "failure", UNMEASURED: "error", INCONCLUSIVE: undecided}
    named = [elements.get(j.verdict) for j in check.judgements]
    counts = {f"{name}s": str(named.count(name)) for name in ("failure", "error")}
    counts |= {"tests": str(len(named)), "skipped": str(named.count("skipped"))}
    suite = ET.Element("testsuite", {"name": "slmkit check", **counts})
    for judgement, element in zip(check.judgements, named, strict=True):
        title = f"{judgement.test}: {judgement.criterion}"
        case = ET.SubElement(suite, "testcase", {"classname": _plain(judgement.ref), "name": _plain(title)})
        if element:
            message = {"message": _plain(f"{judgement.verdict}: {judgement.text}")}
            ET.SubElement(case, element, message if element == "skipped" else {"type": judgement.verdict, **message})
    if check.notes:
        ET.SubElement(suite, "system-out").text = _plain("\n".join(check.notes))
    suites = ET.Element("testsuites", counts)
    suites.append(suite)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _plain(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write."""
    return "".join(
        c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "?" for c in text
    )


def _cells(judgement: Judgement, verdict: str) -> tuple[Cell, ...]:
    shown = [Cell(_value(judgement, value), value) for value in (judgement.baseline, judgement.now)]
    texts = (judgement.text, judgement.criterion)
    return (
        Cell(judgement.ref, judgement.ref),
        Cell(judgement.test, judgement.test),
        *shown,
        *(Cell(text, text) for text in texts),
        Cell(verdict, judgement.verdict),
    )


def _value(judgement: Judgement, value: float | None) -> str:
    if value is None:
        return units.DASH
    if judgement.test in _SHOWN:
        return _SHOWN[judgement.test](value)
    return f"{value:.2f}"
