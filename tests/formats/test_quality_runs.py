"""Runs of `quality` as text: what is written is read back, and what is none says so."""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.bench import Failure
from slmkit.core.history import ListedQuality, StoredQuality
from slmkit.core.quality import QualityRun
from slmkit.errors import FormatError
from slmkit.formats.runs import parse, parse_any, plain
from slmkit.report.asked import behaviour_table, tasks_table
from slmkit.report.damage import worst_text
from slmkit.report.quality import further_tables, quality_record
from slmkit.report.runs import quality_run_table, runs_table
from slmkit.report.table import json_text, markdown
from tests import judged, measured
from tests.formats.spoilt import spoil

FAILED = judged.row("Q2_K", 0.5, failure=Failure("engine.crashed", "it crashed", log=("a", "b")))
ONE = judged.run(judged.F16, judged.Q8_0, FAILED)
DAMAGED = judged.damaged(judged.Q8_0)
DAMAGE = plain(judged.run(judged.F16, DAMAGED))["rows"][1]["damage"]
DAMAGED_GROUP, DAMAGED_CONTEXT = DAMAGE["groups"][0], DAMAGE["worst"][0]
DAMAGED_PLACE = DAMAGED_CONTEXT["place"]


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def changed(**values: Any) -> bytes:
    return text({**plain(ONE), **values})


def rows_changed(number: int, **values: Any) -> bytes:
    document = plain(ONE)
    document["rows"][number] |= values
    return text(document)


def test_what_is_written_is_read_back() -> None:
    assert parse_any(text(plain(ONE))) == [ONE]
    bench = measured.run()
    both = parse_any(text([plain(ONE), plain(bench)]))
    assert [plain(found) for found in both] == [plain(ONE), plain(bench)]
    assert [plain(found) for found in parse_any(text(plain(bench)))] == [plain(bench)]


def asked(**changes: Any) -> QualityRun:
    """The same, with questions and prompts."""
    return replace(judged.asked(ONE), **changes)


def test_questions_and_prompts_are_read_back_and_shown() -> None:
    (found,) = parse_any(text(plain(asked())))
    assert found == asked()
    assert isinstance(found, QualityRun)
    assert markdown(quality_run_table(StoredQuality("20261124-quality-abc", found)))
    tables = (tasks_table([found]), behaviour_table([found]))
    assert all(table and markdown(table) for table in tables)


def test_json_has_what_the_tables_of_questions_and_prompts_show() -> None:
    report = asked().behaviour
    assert report
    base = replace(asked().tasks[0], ref=judged.F16.ref, digest=judged.F16.digest)
    wrong = replace(base, ref="org/m:Q8_0", digest="sha256:q8", scored=(replace(base.scored[0], answer=1),))
    silent = replace(wrong, ref="org/m:Q2_K", scored=(), failure=FAILED.failure)
    mute = replace(report.rows[0], ref="org/m:Q2_K", answers=(), failure=FAILED.failure)
    rows = (replace(report.rows[0], ref="org/m:Q4_0"), mute)
    run = asked(tasks=(base, wrong, silent), behaviour=replace(report, rows=rows))
    record = json.loads(json_text(quality_record(run)))
    keys = ("accuracy", "n_questions", "chance", "difference", "p_value", "n_changed")
    assert [[each[key] for key in keys] for each in record["tasks"]] == [
        [1.0, 1, 0.5, None, None, None],
        [0.0, 1, 0.5, -1.0, 1.0, 0],
        [None, 0, None, None, None, None],
    ]
    assert record["tasks"][0]["interval"][1] == 1.0
    reference, same, nothing = record["behaviour"]["figures"]
    assert (reference["is_reference"], reference["median_tokens"], reference["loops"]) == (True, None, 0.0)
    assert (reference["valid_json"], reference["valid_json_with_keys"]) == (1.0, 0.0)
    assert (same["is_reference"], same["median_tokens"], same["same"]) == (False, 64, 1.0)
    assert (nothing["n_prompts"], nothing["loops"], nothing["same"]) == (0, None, None)
    table = tasks_table([run])
    assert table
    assert [[each[key] for key in ("accuracy", "difference", "p_value")] for each in table.records()] == [
        [each[key] for key in ("accuracy", "difference", "p_value")] for each in record["tasks"]
    ]


def test_questions_and_prompts_that_cannot_be_computed_with() -> None:
    (result,), report = asked().tasks, asked().behaviour
    assert report
    (scored,) = result.scored
    for wrong, said in (
        ({"tasks": (replace(result, scored=(replace(scored, n_chars=(0, 4)),)),)}, "one score for each choice"),
        ({"tasks": (replace(result, scored=(replace(scored, logs=(-1.0,)),)),)}, "one score for each choice"),
        ({"tasks": (replace(result, scored=(replace(scored, answer="x"),)),)}, "something else"),  # type: ignore[arg-type]
        ({"tasks": (replace(result, form="essay"),)}, "form is not what it should be"),  # type: ignore[arg-type]
        ({"behaviour": replace(report, rows=(replace(report.rows[0], answers=()),))}, "other answers than its base"),
    ):
        with pytest.raises(FormatError, match=said):
            parse_any(text(plain(asked(**wrong))))


def damage_changed(**values: Any) -> bytes:
    document = plain(judged.run(judged.F16, DAMAGED))
    document["rows"][1]["damage"] |= values
    return text(document)


def test_damage_is_read_back_and_shown() -> None:
    run = judged.run(judged.F16, DAMAGED, FAILED)
    (found,) = parse_any(text(plain(run)))
    assert found == run
    assert isinstance(found, QualityRun)
    assert [table.columns[0].title for table in further_tables([found])] == ["kind of token", "tokens before it"]
    assert quality_record(found)["rows"][1]["damage"]["worst"][0]["before"] == "the <b>\n"
    assert "damage" not in quality_record(found)["rows"][0]


def test_the_damage_of_a_broken_model_has_what_is_no_number() -> None:
    (chunk, *_), nothing = judged.Q8_0.chunks, math.nan
    broken = replace(judged.Q8_0, chunks=(replace(chunk, kld=array("f", [nothing] * len(chunk.kld))),))
    run = judged.run(replace(judged.F16, chunks=judged.F16.chunks[:1]), judged.damaged(broken))
    (found,) = parse_any(text(plain(run)))
    assert isinstance(found, QualityRun)
    assert math.isnan(found.damages[0].worst[0].place.kld)
    assert all(markdown(table) for table in further_tables([found]))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"digest": "sha256:other"}, "the damage of org/m:Q8_0 is that of"),
        ({"groups": [{"kind": "class"}]}, "without 'kld'"),
        ({"groups": [{**DAMAGED_GROUP, "kind": "colour"}]}, r"damage.groups\[0\].kind of org/m:Q8_0 is not"),
        ({"groups": [{**DAMAGED_GROUP, "n_tokens": "many"}]}, r"damage.groups\[0\].n_tokens"),
        ({"worst": [{**DAMAGED_CONTEXT, "before": 3}]}, r"damage.worst\[0\].before"),
        ({"worst": [{**DAMAGED_CONTEXT, "top": [{"text": "a"}]}]}, "something else"),
        ({"worst": [{**DAMAGED_CONTEXT, "place": {**DAMAGED_PLACE, "index": 32}}]}, "a place that was not read"),
        ({"worst": [{**DAMAGED_CONTEXT, "place": {**DAMAGED_PLACE, "domain": "code"}}]}, "a place that was not read"),
    ],
)
def test_damage_that_is_not_of_the_row_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_any(damage_changed(**values))


def test_a_gate_of_benches_takes_no_other() -> None:
    with pytest.raises(FormatError, match="not a bench run"):
        parse(text(plain(ONE)))


def test_a_broken_model_may_have_scores_that_are_no_numbers() -> None:
    document = plain(ONE)
    worst = document["rows"][1]["chunks"][0]
    worst["nll"] = worst["kld"] = "AADAfw=="  # one float32: not a number
    worst["same_top"] = "AA=="
    document["rows"][0]["chunks"][0]["nll"] = "AACAPw=="
    (found,) = parse_any(text(document))
    assert isinstance(found, QualityRun)
    assert len(found.rows) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(schema=99), "schema is 99"),
        (changed(rows=[]), "without rows"),
        (changed(host=3), "whose host is not"),
        (changed(created="yesterday"), "`created`"),
        (changed(rows=[3]), "something else"),
        (changed(spec={**plain(ONE)["spec"], "n_ctx": 1}), "settings that cannot be"),
        (text({k: v for k, v in plain(ONE).items() if k != "corpus"}), "without 'corpus'"),
        (text(quality_record(ONE)), "without its raw scores"),
        (rows_changed(0, chunks=[]), "not one of its base's"),
        (rows_changed(1, chunks=[{**plain(ONE)["rows"][1]["chunks"][0], "same_top": ""}]), "one score for each"),
        (rows_changed(1, chunks=[{**plain(ONE)["rows"][1]["chunks"][0], "nll": "x"}]), "something else"),
    ],
)
def test_what_is_no_run_says_what_is_wrong(content: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_any(content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_wrong_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """Never another error, and what is read can be shown."""
    damaged = judged.damaged(judged.row("Q8_0", 0.01, n=2))
    document = plain(judged.run(judged.row("F16", None, n=2), damaged, FAILED))
    spoil(document, data)
    try:
        (found,) = parse_any(text(document))
    except FormatError:
        return
    if isinstance(found, QualityRun):
        stored = StoredQuality("20261124-quality-abc", found)
        assert markdown(runs_table([ListedQuality(stored, found.rows)]))
        assert markdown(quality_run_table(stored))
        assert all(markdown(table) for table in further_tables([found]))
        assert all(worst_text(damage) for damage in found.damages)


def test_the_list_says_which_kind_and_how_good() -> None:
    listed = [ListedQuality(StoredQuality("20261124-quality-abc", ONE), (judged.Q8_0,))]
    (record,) = runs_table(listed).records()
    assert (record["kind"], record["n_rows"], record["state"]) == ("quality", 1, [])
    assert record["kld"] == pytest.approx(0.002, rel=0.2)
    shown = markdown(runs_table(listed))
    assert "KLD at 64 of prose" in shown
    broken = replace(listed[0], rows=(judged.row("Q8_0", 0.1, defect="another vocabulary"),))
    assert runs_table([broken]).records()[0]["state"] == ["broken"]
