"""Runs of `quality --sensitivity` out of JSON: read, and checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slmkit.core.sensitivity import SCHEMA, Cost, Sensitivity
from slmkit.errors import FormatError
from slmkit.formats.shape import misfit, reading

KIND = "sensitivity"


def read(document: Mapping[str, Any]) -> Sensitivity:
    """The run; raises `FormatError` for what is none."""
    if (schema := document.get("schema")) != SCHEMA:
        raise FormatError(f"its schema is {schema!r}, this slmkit reads {SCHEMA}: use another slmkit")
    with reading("a sensitivity run"):
        run = Sensitivity.from_document(document)
    _check(run)
    return run


def _check(run: Sensitivity) -> None:
    """What is computed from a run must not fall over what is in it."""
    costs = tuple(replace(cost, klds=()) for cost in run.costs)  # may be no number: the KLD of a broken file
    if wrong := misfit(replace(run, costs=costs), Sensitivity, "run"):
        raise FormatError(f"a sensitivity run whose {wrong.removeprefix('run.')} is not what it should be")
    if not all(isinstance(kld, float) for cost in run.costs for kld in cost.klds):
        raise FormatError("a sensitivity run with a KLD that is no number")
    if any(len(rule) != 2 for rule in run.rules):
        raise FormatError("a sensitivity run with a rule that is no pattern and type")
    if not any(_is_whole(cost) for cost in run.costs):
        raise FormatError("a sensitivity run without what all tensors cost together")


def _is_whole(cost: Cost) -> bool:
    return cost.group.kind == "all"
