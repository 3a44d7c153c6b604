"""Runs of `quality` out of JSON: read, and checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slmkit.core.damage import Damage
from slmkit.core.quality import SCHEMA, Chunk, QualityRow, QualityRun
from slmkit.core.tasks import Scored
from slmkit.errors import FormatError
from slmkit.formats.shape import misfit, reading

KIND = "quality"


def read(document: Mapping[str, Any]) -> QualityRun:
    """The run; raises `FormatError` for what is none, or has other scores than its base."""
    if (schema := document.get("schema")) != SCHEMA:
        raise FormatError(f"its schema is {schema!r}, this slmkit reads {SCHEMA}: use another slmkit")
    with reading("a quality run"):
        try:
            run = QualityRun.from_document(document)
        except KeyError as error:
            if error.args[0] != "chunks":
                raise
            hint = "`slmkit runs export` has them, `quality --json` has not"
            raise FormatError("a quality run without its raw scores", hint=hint) from error
    _check(run)
    return run


def _check(run: QualityRun) -> None:
    """What is computed from a run must not fall over what is in it."""
    without = replace(
        run,
        rows=tuple(replace(row, chunks=(), damage=None) for row in run.rows),
        tasks=tuple(replace(result, scored=()) for result in run.tasks),
    )  # what is left out may be no number: the scores of a broken model
    if wrong := misfit(without, QualityRun, "run"):
        raise FormatError(f"a quality run whose {wrong.removeprefix('run.')} is not what it should be")
    if not run.rows:
        raise FormatError("a quality run without rows")
    base = run.base_row
    read_by_base = {_name(chunk): len(chunk.nll) for chunk in base.chunks} if base else {}
    for row in run.rows:
        for chunk in row.chunks:
            _check_chunk(row, chunk, read_by_base)
        if row.damage:
            _check_damage(row, row.damage)
    _check_asked(run)


def _check_chunk(row: QualityRow, chunk: Chunk, read_by_base: Mapping[tuple[str, int], int]) -> None:
    n_tokens = len(chunk.nll)
    if misfit(chunk.domain, str) or misfit(chunk.number, int):
        raise FormatError(f"a chunk of {row.ref} has no domain or no number")
    if not n_tokens or len(chunk.kld) not in (0, n_tokens) or len(chunk.same_top) != len(chunk.kld):
        raise FormatError(f"chunk {chunk.number} of {chunk.domain} of {row.ref} has not one score for each token")
    if chunk.kld and read_by_base.get(_name(chunk)) != n_tokens:
        raise FormatError(f"chunk {chunk.number} of {chunk.domain} of {row.ref} is not one of its base's")


def _check_damage(row: QualityRow, damage: Damage) -> None:
    """Its numbers may be none: those of a broken model."""
    if wrong := misfit(damage, Damage, "damage", finite=False):
        raise FormatError(f"the {wrong} of {row.ref} is not what it should be")
    if (damage.ref, damage.digest) != (row.ref, row.digest):
        raise FormatError(f"the damage of {row.ref} is that of {damage.ref}")
    n_scored = {_name(chunk): len(chunk.kld) for chunk in row.chunks}
    for place in (context.place for context in damage.worst):
        if not 0 <= place.index < n_scored.get((place.domain, place.number), 0):
            raise FormatError(f"a worst context of {row.ref} is at a place that was not read")


def _check_asked(run: QualityRun) -> None:
    """Questions and prompts."""
    for result in run.tasks:
        for scored in result.scored:
            lengths = {len(each) for each in (scored.logs, scored.n_chars, scored.n_bytes, scored.n_tokens)}
            plain = replace(scored, logs=())
            if misfit(plain, Scored) or not all(isinstance(log, float) for log in scored.logs):
                raise FormatError(f"question {scored.name} to {result.ref} has something else in it")
            if len(lengths) != 1 or not scored.logs or min(scored.n_chars) < 1:
                raise FormatError(f"question {scored.name} to {result.ref} has not one score for each choice")
    if run.behaviour:
        for row in run.behaviour.rows:
            if not row.failure and len(row.answers) != len(run.behaviour.reference.answers):
                raise FormatError(f"{row.ref} has other answers than its base")


def _name(chunk: Chunk) -> tuple[str, int]:
    return chunk.domain, chunk.number
