"""What is computed from log-likelihoods: picks, accuracies, pairs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from slmkit.core.bench import Failure
from slmkit.core.proportion import Paired, Proportion
from slmkit.core.tasks import Scored, TaskResult
from slmkit.errors import UsageError


def scored(
    name: str, answer: int, logs: tuple[float, ...], n_chars: tuple[int, ...], domain: str | None = None
) -> Scored:
    return Scored(name, domain, answer, logs, n_chars, n_chars, n_tokens=(1,) * len(logs))


def result(ref: str, *each: Scored) -> TaskResult:
    return TaskResult(ref, f"sha256:{ref}", "some.jsonl", "arc", "f" * 64, each, build={"engine": "x"})


LONG = scored("long", 1, (-4.0, -6.0), (4, 12), "a")
"""The first is likelier, the second likelier for each of its characters."""
SHORT = scored("short", 0, (-1.0, -2.0, -3.0, -9.0), (3, 3, 3, 3), "b")
EVEN = scored("even", 1, (-2.0, -2.0), (5, 5))


def test_a_pick_is_the_likeliest_or_the_likeliest_by_characters_and_of_equals_the_first() -> None:
    assert (LONG.picked("acc"), LONG.picked("acc_norm")) == (0, 1)
    assert (SHORT.picked("acc"), SHORT.picked("acc_norm")) == (0, 0)
    assert EVEN.picked("acc") == 0
    found = result("m", LONG, SHORT, EVEN)
    assert found.accuracy("acc") == Proportion(1, 3)
    assert found.accuracy("acc_norm") == found.accuracy() == Proportion(2, 3)
    assert replace(found, form="mmlu").accuracy() == Proportion(1, 3)
    assert found.by_domain() == {"a": Proportion(1, 1), "b": Proportion(1, 1)}
    assert found.chance == pytest.approx((0.5 + 0.25 + 0.5) / 3)


def test_two_are_compared_question_by_question() -> None:
    base = result("base", LONG, SHORT, EVEN, SHORT)
    other = result(
        "quant", LONG, replace(SHORT, logs=(-3.0, -1.0, -4.0, -5.0)), replace(EVEN, logs=(-3.0, -2.0)), SHORT
    )
    assert other.against(base) == Paired(n_both=2, n_only_first=1, n_only_second=1, n_neither=0)
    assert other.n_changed(base) == 2
    assert other.n_changed(other) == 0


def test_what_cannot_be_compared_says_so() -> None:
    base = result("base", SHORT)
    with pytest.raises(UsageError, match=r"different questions: some\.jsonl and other\.jsonl"):
        replace(base, ref="m", task="other.jsonl", task_sha256="0").against(base)
    failed = replace(base, ref="m", scored=(), failure=Failure("engine", "no"))
    for pair in ((failed, base), (base, failed)):
        with pytest.raises(UsageError, match="m has no answers"):
            pair[0].n_changed(pair[1])


@pytest.mark.parametrize("failure", [None, Failure("engine.crashed", "gone", None, ("last", "lines"))])
def test_a_document_is_read_back(failure: Failure | None) -> None:
    found = replace(result("m", LONG, SHORT), failure=failure, n_cut=3)
    assert TaskResult.from_document(json.loads(json.dumps(found.document()))) == found
