"""Paths, loops and JSON, out of tokens and texts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from slmkit.core.behaviour import Answer, Behaviour, BehaviourReport, Departure, Generation, json_object
from slmkit.core.bench import Failure
from slmkit.core.proportion import Proportion
from slmkit.errors import UsageError


def wrote(*tokens: int, ended: bool = False, text: str = "") -> Generation:
    return Generation(tokens, text, ended)


def behaved(ref: str, *free: Generation, n_gen: int = 4) -> Behaviour:
    answers = tuple(Answer(f"p{i}", (), each) for i, each in enumerate(free))
    return Behaviour(ref, f"sha256:{ref}", "f" * 64, n_gen, answers, tokens_sha256="a" * 64)


@pytest.mark.parametrize(
    ("tokens", "is_loop"),
    [
        ([7] * 12, True),
        ([7] * 11, False),
        ([1, 2, 3] + [4, 5, 6, 7] * 3, True),
        ([1, 2, 3] + [4, 5, 6, 7] * 2, False),
        ([8, 9] * 6, True),
        ([8, 9] * 5 + [8], False),
        (list(range(16)) * 3, True),
        (list(range(17)) * 3, False),
        ([1, 2, 3, 4] * 3 + [9], False),
        ([3, 1, 2, 3, 4] + [5, 1, 2, 3, 4] * 2 + [5, 1, 2, 3], True),  # it need not end with a whole cycle
        ([], False),
    ],
)
def test_a_loop_is_a_cycle_at_the_end(tokens: list[int], is_loop: bool) -> None:
    assert wrote(*tokens).is_loop == is_loop
    assert not wrote(*tokens, ended=True).is_loop


def test_where_a_path_is_left() -> None:
    reference = behaved("f16", wrote(1, 2, 3, 4), wrote(1, 2, ended=True), wrote(1, 2, ended=True), wrote(1, 2, 3, 4))
    quant = behaved("q4", wrote(1, 2, 9, 4), wrote(1, 2, ended=True), wrote(1, 2, 3, 4), wrote(ended=True))
    found = quant.agreement(reference)
    assert found.departures == (
        Departure("p0", 2, True),
        Departure("p1", 4, False),
        Departure("p2", 2, True),
        Departure("p3", 0, True),
    )
    assert (found.median_tokens, found.is_censored, found.same) == (2, False, Proportion(1, 4))
    itself = reference.agreement(reference)
    assert (itself.median_tokens, itself.is_censored, itself.same.share) == (4, True, 1.0)


def test_a_median_is_at_least_when_half_never_left() -> None:
    reference = behaved("f16", wrote(1, 2, 3, 4), wrote(1, 2, 3, 4))
    found = behaved("q4", wrote(1, 2, 3, 4), wrote(1, 9, 3, 4)).agreement(reference)
    assert (found.median_tokens, found.is_censored) == (2.5, True)


def test_what_cannot_be_compared_says_so() -> None:
    reference = behaved("f16", wrote(1))
    others = {
        "q has no answers": replace(reference, ref="q", answers=(), failure=Failure("engine", "no")),
        "asked different things": replace(reference, ref="q", n_gen=5),
        "q reads the prompts in other tokens than f16": replace(reference, ref="q", tokens_sha256="b"),
    }
    for words, other in others.items():
        with pytest.raises(UsageError, match=words):
            other.agreement(reference)
        assert BehaviourReport(reference, (other,)).agreement(other) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        (' \n{"a": [1, {}]} and more', {"a": [1, {}]}),
        ('```json\n{"a": null}\n```', {"a": None}),
        ("```\n{}", {}),
        ('{"a": 1', None),
        ('Here it is: {"a": 1}', None),
        ("[1, 2]", None),
        ('{"a": NaN}', None),
        ("{'a': 1}", None),
        ("", None),
        ("[" * 100_000, None),
        ('{"a": ' + "1" * 5000 + "}", None),
    ],
)
def test_an_answer_begins_with_a_whole_object_or_is_no_json(text: str, found: object) -> None:
    assert json_object(text) == found


def test_json_is_counted_where_it_was_asked_for() -> None:
    answers = (
        Answer("a", ("x",), wrote(text="no"), wrote(text='{"x": 1}')),
        Answer("b", ("x", "y"), wrote(text='{"x": 1}'), wrote(text='{"x": 1, "y": 2, "z": 3}')),
        Answer("c", ("x",), wrote(text='{"x": 1}'), wrote(text='{"x": ')),
        Answer("d", (), wrote(text='{"x": 1}')),
    )
    found = replace(behaved("m"), answers=answers)
    assert found.valid_json() == Proportion(2, 3)
    assert found.valid_json(with_keys=True) == Proportion(1, 3)
    assert found.valid_json(constrained=True) == found.valid_json(constrained=True, with_keys=True) == Proportion(2, 3)


def test_a_document_is_read_back() -> None:
    one = replace(behaved("m", wrote(1, 2, text="é")), answers=(Answer("a", ("x",), wrote(1), wrote(2, ended=True)),))
    report = BehaviourReport(one, (replace(one, failure=Failure("engine", "no", None, ("log",))),))
    assert BehaviourReport.from_document(json.loads(json.dumps(report.document()))) == report
