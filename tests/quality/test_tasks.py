"""Questions, put to models of the registry by the real engine; and the questions that come with slmkit."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.core.tasks import TaskResult
from slmkit.errors import FormatError, UsageError
from slmkit.ops import adopt
from slmkit.ops.adopt import describe
from slmkit.ops.quality import tasks
from slmkit.recipes import verbs
from slmkit.recipes.session import Session

FOLDER = resources.files("slmkit") / "data" / "tasks"


def test_the_bundled_questions_are_those_that_results_are_known_by() -> None:
    content = (FOLDER / "basics.jsonl").read_bytes()
    task = tasks.bundled()
    assert (task.name, task.form, task.sha256) == ("basics", "arc", hashlib.sha256(content).hexdigest())
    listed = re.findall(r"^\| `(\S+)` \| (\d+) \| `(\w+)` \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == [("basics.jsonl", str(len(task.questions)), task.sha256)]
    domains = Counter(question.domain for question in task.questions)
    assert domains == dict.fromkeys(("knowledge", "arithmetic", "language", "science", "common sense"), 24)
    assert Counter(question.answer for question in task.questions) == dict.fromkeys(range(4), 30)
    for domain in domains:
        answers = Counter(question.answer for question in task.questions if question.domain == domain)
        assert answers == dict.fromkeys(range(4), 6)
    assert all(len(set(question.choices)) == 4 for question in task.questions)
    assert len({question.name for question in task.questions}) == len({q.context for q in task.questions}) == 120


def test_the_longest_choice_is_no_hint() -> None:
    """Nor is the shortest: who always takes it gets hardly more right than who guesses."""
    task = tasks.bundled()
    for extreme in (max, min):
        right = sum(q.choices.index(extreme(q.choices, key=len)) == q.answer for q in task.questions)
        assert 20 <= right <= 45


def test_each_model_answers_and_a_quant_is_held_against_its_base(tiny: str, session: Session) -> None:
    base, quant = (found(session, tiny, variant) for variant in ("F16", "Q4_0"))
    task = tasks.bundled()
    results = tasks.answer([base, quant], task, SILENT, n_threads=1)
    first, second = results
    assert [result.ref for result in results] == [base.ref, quant.ref]
    assert first.failure is second.failure is None
    assert [scored.name for scored in first.scored] == [question.name for question in task.questions]
    assert first.scored[0].n_chars == tuple(map(len, task.questions[0].choices))
    assert first.n_cut == 0
    assert first.accuracy().n == 120
    assert first.chance == 0.25
    assert set(first.by_domain()) == {"knowledge", "arithmetic", "language", "science", "common sense"}
    assert 0 < second.n_changed(first) < 120
    paired = second.against(first)
    assert paired.n == 120
    assert paired.difference == pytest.approx((second.accuracy().n_yes - first.accuracy().n_yes) / 120)
    assert TaskResult.from_document(first.document()) == first


def test_one_that_cannot_be_asked_has_the_reason_and_the_others_answer(
    tiny: str, session: Session, tmp_path: Path, f16: Path
) -> None:
    copy = tmp_path / "broken-F16.gguf"
    copy.write_bytes(f16.read_bytes())
    broken = describe(copy, SILENT)
    copy.write_bytes(f16.read_bytes()[:-5000])
    whole = found(session, tiny, "F16")
    task = replace(tasks.bundled(), questions=tasks.bundled().questions[:8])
    results = tasks.answer([broken, whole], task, SILENT, n_threads=1)
    assert [result.failure and result.failure.code for result in results] == ["engine", None]
    failure = results[0].failure
    assert failure is not None
    assert "cannot load broken-F16.gguf" in failure.message
    assert failure.log
    with pytest.raises(UsageError, match="has no answers"):
        results[1].against(results[0])


def test_a_checkpoint_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="is a checkpoint"):
        tasks.answer([adopt.describe(checkpoint, SILENT)], tasks.bundled(), SILENT)


def test_a_file_of_the_users(tiny: str, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "Is it?", "choices": ["yes", "no"], "answer": "B", "subject": "it"}\n')
    task = tasks.task_file(path)
    (result,) = tasks.answer([found(session, tiny, "Q4_0")], task, SILENT, n_threads=1)
    assert (result.task, result.form, result.measure) == ("mine.jsonl", "mmlu", "acc")
    assert result.scored[0].n_tokens == (2, 2)  # the tiny vocabulary has no piece of a space and a capital letter
    assert all(log < 0 for log in result.scored[0].logs)
    with pytest.raises(UsageError, match=r"cannot read .*none\.jsonl: No such file"):
        tasks.task_file(tmp_path / "none.jsonl")
    path.write_text("{}\n")
    with pytest.raises(FormatError, match=r"mine\.jsonl, line 1: expected"):
        tasks.task_file(path)


def found(session: Session, model: str, variant: str) -> Artifact:
    (artifact,) = (a for a in verbs.artifacts([ModelRef.parse(model)], session) if a.variant == variant)
    return artifact
