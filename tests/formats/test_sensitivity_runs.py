"""Runs of `quality --sensitivity` as text: what is written is read back, and what is none says so."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.history import AnyListed, Listed, ListedSensitivity, StoredRun, StoredSensitivity, Wanted
from slmkit.core.sensitivity import Sensitivity
from slmkit.errors import FormatError
from slmkit.formats.runs import moment, parse_any, plain
from slmkit.report.runs import runs_table, sensitivity_run_table
from slmkit.report.sensitivity import sensitivity_record
from slmkit.report.table import markdown
from tests import judged, measured
from tests.formats.spoilt import spoil
from tests.report.test_sensitivity import COSTS, FOUND

ONE = replace(FOUND, created="2026-11-24T10:00:00+00:00", host={"cpu": "One CPU"}, build={"llama.cpp": "0c1e57098"})
WITHOUT_ALL = [plain(ONE)["costs"][0]]


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def changed(**values: Any) -> bytes:
    return text({**plain(ONE), **values})


def stored(run: Sensitivity = ONE) -> StoredSensitivity:
    return StoredSensitivity("20261124-sensitivity-abc", run)


def test_what_is_written_is_read_back() -> None:
    assert parse_any(text(plain(ONE))) == [ONE]
    assert parse_any(text(sensitivity_record(ONE))) == [ONE]  # with what `quality --json` adds
    documents = [plain(ONE), plain(judged.run(judged.F16, judged.Q8_0)), plain(measured.run())]
    assert [plain(found) for found in parse_any(text(documents))] == documents


def test_the_cost_of_a_broken_file_may_be_no_number() -> None:
    worst = replace(ONE, costs=(replace(COSTS[0], klds=(math.nan, 1.0)), *COSTS[1:]))
    (found,) = parse_any(text(plain(worst)))
    assert isinstance(found, Sensitivity)
    assert markdown(sensitivity_run_table(stored(found)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(schema=99), "schema is 99"),
        (changed(costs=[]), "without what all tensors cost together"),
        (changed(costs=WITHOUT_ALL), "without what all tensors cost together"),
        (changed(costs=[{**WITHOUT_ALL[0], "klds": ["x"]}]), "a KLD that is no number"),
        (changed(costs=[{**WITHOUT_ALL[0], "saved_bytes": "x"}]), "whose costs"),
        (changed(host=3), "whose host is not"),
        (changed(created="yesterday"), "`created`"),
        (changed(rules=[["a"]]), "a rule that is no pattern and type"),
        (changed(spec={**plain(ONE)["spec"], "n_ctx": 1}), "settings that cannot be"),
        (text({k: v for k, v in plain(ONE).items() if k != "corpus"}), "without 'corpus'"),
    ],
)
def test_what_is_no_run_says_what_is_wrong(content: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_any(content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_wrong_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """Never another error, and what is read can be shown."""
    document = plain(ONE)
    spoil(document, data)
    try:
        (found,) = parse_any(text(document))
    except FormatError:
        return
    if isinstance(found, Sensitivity):
        assert markdown(runs_table([ListedSensitivity(stored(found), found.costs)]))
        assert markdown(sensitivity_run_table(stored(found)))


def test_the_list_says_of_what_it_is_and_what_all_cost() -> None:
    bench = measured.run(measured.row("org/m:Q4_0"))
    a_bench = Listed(StoredRun("20261124-bench-abc", bench), bench.rows)
    listed: list[AnyListed] = [ListedSensitivity(stored(), ONE.costs), a_bench]
    one, other = runs_table(listed).records()
    assert (one["kind"], one["models"], one["n_rows"]) == ("sensitivity", ["m-F16 in Q4_0"], len(COSTS))
    assert one["kld"] == pytest.approx(0.062)
    assert other["tg_tok_per_s"], "the one row of the bench has its speed beside it"


@pytest.mark.parametrize(
    ("wanted", "is_one"),
    [
        (Wanted(), True),
        (Wanted(model="org/M", quant="q4_0", host="one"), True),
        (Wanted(quant="F16"), False),
        (Wanted(model="other"), False),
        (Wanted(host="Raspberry"), False),
        (Wanted(until=moment(ONE).date()), True),
        (Wanted(since=moment(ONE).date().replace(day=25)), False),
    ],
)
def test_it_is_looked_for_by_model_type_machine_and_day(wanted: Wanted, is_one: bool) -> None:
    assert bool(wanted.groups(ONE, moment(ONE).date())) == is_one
