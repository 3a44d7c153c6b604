"""Runs as text: slmkit's own JSON, and llama-bench's JSON and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from slmkit.core.bench import SCHEMA, BenchRun
from slmkit.core.quality import QualityRun
from slmkit.core.sensitivity import Sensitivity
from slmkit.errors import FormatError
from slmkit.formats import llama_bench, quality_runs, sensitivity_runs
from slmkit.formats.shape import misfit, reading

Run = BenchRun | QualityRun | Sensitivity
EXPECTED = (
    "expected the JSON of `slmkit bench --json` or `slmkit runs export`, or of `llama-bench -o json` or `-o jsonl`"
)


def parse(content: bytes) -> list[BenchRun]:
    """The bench runs in a file. Measurements of llama-bench become one run for each machine, build and setting.

    Raises `FormatError`, which does not name the file, for anything else.
    """
    return _benches(_documents(content))


def parse_any(content: bytes) -> list[Run]:
    """The same, and runs of `quality` and its `--sensitivity`; all kinds may be in one file."""
    documents = _documents(content)
    if not any(_kind(document) in _READERS for document in documents):
        return [*_benches(documents)]
    found = [_READERS.get(_kind(document), _run)(document) for document in documents]
    for run in found:
        moment(run)
    return found


def _benches(documents: list[Any]) -> list[BenchRun]:
    if all(isinstance(document, dict) and "test_time" in document for document in documents):
        found = llama_bench.runs(documents)
    else:
        found = [_run(document) for document in documents]
    for run in found:
        moment(run)
    return found


def plain(run: Run) -> dict[str, Any]:
    """A run as the JSON that it is read from: lists, no tuples."""
    document: dict[str, Any] = json.loads(json.dumps(run.document()))
    return document


def moment(run: Run) -> datetime:
    """When it was made, in UTC; raises `FormatError`."""
    try:
        when = datetime.fromisoformat(run.created)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, TypeError, ValueError) as error:
        raise FormatError(f"`created` is {run.created!r}: a time is wanted") from error


def _documents(content: bytes) -> list[Any]:
    """One object, an array of objects, or an object a line."""
    try:
        text = content.decode("utf-8-sig")
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            lines = [line for line in text.splitlines() if line.strip()]
            if len(lines) < 2 or not lines[0].endswith("}"):
                raise FormatError(f"not JSON: {error}; {EXPECTED}") from error
            found = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}; {EXPECTED}") from error
    documents = found if isinstance(found, list) else [found]
    if not documents:
        raise FormatError(f"nothing is in it; {EXPECTED}")
    return documents


def _run(document: Any) -> BenchRun:
    if not isinstance(document, dict) or document.get("kind") != "bench":
        raise FormatError(f"not a bench run; {EXPECTED}")
    schema = document.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise FormatError(f"its schema is {schema!r}, this slmkit reads up to {SCHEMA}: use a newer slmkit")
    with reading("a bench run"):
        run = BenchRun.from_document(document)
    _check(run)
    return run


_READERS: dict[str, Callable[[Any], Run]] = {
    quality_runs.KIND: quality_runs.read,
    sensitivity_runs.KIND: sensitivity_runs.read,
}
"""By the kind that a document says it is of; what says none is a bench."""


def _kind(document: Any) -> str:
    """What a document says of itself; nothing where it is none."""
    return str(document.get("kind")) if isinstance(document, dict) else ""


def _check(run: BenchRun) -> None:
    """What is computed from a run must not fall over what is in it."""
    if wrong := misfit(run, BenchRun, "run"):
        raise FormatError(f"a bench run whose {wrong.removeprefix('run.')} is not what it should be")
    if not run.rows:
        raise FormatError("a bench run without rows")
    for row in run.rows:
        if any(ns <= 0 for test in ("pp", "tg", "pg", "ttft", "itl") for ns in row.samples(test)):
            raise FormatError(f"a sample of {row.ref} took no time at all")
