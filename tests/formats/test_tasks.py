"""The forms in which questions are published, and what is wrong with a file."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.tasks import Question, TaskSpec
from slmkit.errors import FormatError
from slmkit.formats.tasks import parse

MMLU = {"question": " Is it? ", "choices": ["yes", "no", "both", "none"], "answer": 2, "subject": "high_school_logic"}
ARC = {
    "id": "Q7",
    "question": "Which falls?",
    "choices": {"text": ["a stone", "a thought"], "label": ["1", "2"]},
    "answerKey": "1",
}
HELLASWAG = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is on a roof.",
    "ctx_b": "he and Ann",
    "ctx": "A man is on a roof. he and Ann",
    "endings": ["[substeps] sit  down.", "go up [title] Up they go"],
    "label": "1",
}


def read(*records: Any) -> TaskSpec:
    return parse("\n".join(json.dumps(record) for record in records).encode(), "q.jsonl")


def only(record: Any) -> Question:
    (question,) = read(record).questions
    return question


def test_mmlu_lists_the_choices_and_scores_letters() -> None:
    asked = only(MMLU)
    assert asked.context == (
        "The following are multiple choice questions (with answers) about high school logic.\n\n"
        "Is it?\nA. yes\nB. no\nC. both\nD. none\nAnswer:"
    )
    assert (asked.choices, asked.answer, asked.domain) == (("A", "B", "C", "D"), 2, "high_school_logic")
    plain = only({"question": "Is it?", "choices": ["yes", "no"], "answer": "b"})
    assert (plain.context, plain.answer, plain.domain) == ("Is it?\nA. yes\nB. no\nAnswer:", 1, None)


def test_arc_scores_the_texts() -> None:
    expected = Question("Question: Which falls?\nAnswer:", ("a stone", "a thought"), 0, "Q7")
    assert only(ARC) == expected
    listed = [{"text": "a stone", "label": "1"}, {"text": "a thought", "label": "2"}]
    assert only({**ARC, "choices": listed}) == expected
    nested = {"id": "Q7", "question": {"stem": "Which falls?", "choices": listed}, "answerKey": "1"}
    assert only(nested) == expected


def test_hellaswag_is_cleaned_as_the_harness_does() -> None:
    asked = only(HELLASWAG)
    assert asked.context == "Roof shingle removal: A man is on a roof. He and ann"
    assert asked.choices == (" sit down.", "go up. Up they go")
    assert (asked.answer, asked.name, asked.domain) == (1, "24", "Roof shingle removal")
    whole = {key: value for key, value in HELLASWAG.items() if key not in ("ctx_a", "ctx_b", "activity_label")}
    assert only({**whole, "label": 0}).context == "A man is on a roof. he and Ann"


def test_a_file_is_known_by_its_digest_and_questions_by_id_or_line() -> None:
    content = b'\xef\xbb\xbf\n{"question": "a", "choices": ["x\xe2\x80\xa8y", "z"], "answer": 0}\r\n\r\n'
    task = parse(content, "q.jsonl")
    assert (task.name, task.form, task.sha256) == ("q.jsonl", "mmlu", hashlib.sha256(content).hexdigest())
    assert [question.name for question in task.questions] == ["line 2"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([1], "line 2: a JSON object"),
        ({"text": "a"}, r"line 2: expected the keys of MMLU \(question"),
        ({**MMLU, "answer": 4}, "line 2: `answer` is 4: a number from 0 to 3"),
        ({**MMLU, "answer": "E"}, "`answer` is 4"),
        ({**MMLU, "answer": True}, "`answer` is True"),
        ({**MMLU, "answer": None}, "`answer` is None"),
        ({**MMLU, "question": " "}, "`question`: a text"),
        ({**MMLU, "question": 3}, "`question`: a text"),
        ({**MMLU, "subject": 3}, "`subject`: a text"),
        ({**MMLU, "choices": ["one"]}, "`choices`: 1 of them: 2 to 26"),
        ({**MMLU, "choices": ["one", ""]}, "none of them empty"),
        ({**MMLU, "choices": "one, two"}, "`choices`: a list of texts"),
        ({**MMLU, "choices": ["x"] * 27}, "27 of them"),
    ],
)
def test_what_is_wrong_with_a_line_of_mmlu(record: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        read(MMLU, record)
    assert caught.value.message.startswith("q.jsonl, line 2: ")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({**ARC, "answerKey": "C"}, "`answerKey` is 'C': one of 1, 2"),
        ({**ARC, "answerKey": 1}, "`answerKey` is 1"),
        ({**ARC, "answerKey": []}, r"`answerKey` is \[\]"),
        ({**ARC, "question": {"text": "a"}}, "`question`: a text, or an object with `stem`"),
        ({**ARC, "question": None}, "`question`: a text, or an object with `stem`"),
        ({**ARC, "choices": ["a", "b"]}, "`choices`: an object with `text` and `label`"),
        ({**ARC, "choices": {"text": ["a", "b"], "label": ["A", "B", "C"]}}, "2 texts and 3 labels"),
        ({**ARC, "choices": {"text": ["a", "b"]}}, r"`choices\.label`: a list of texts"),
        ({**HELLASWAG, "label": ""}, "`label` is ''"),
        ({**HELLASWAG, "label": "2"}, "`label` is 2"),
        ({**HELLASWAG, "endings": ["[header]", "b"]}, "one is empty but for what is in brackets"),
        ({**HELLASWAG, "ctx_a": None, "ctx": None}, "`ctx`: a text"),
        ({**HELLASWAG, "ctx_b": 4}, "`ctx_b`: a text"),
    ],
)
def test_what_is_wrong_with_a_line_of_the_others(record: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(record)


def test_what_is_wrong_with_a_file() -> None:
    with pytest.raises(FormatError, match=r"q\.jsonl, line 3: this line is in the form of arc, those before of mmlu"):
        parse(f"{json.dumps(MMLU)}\n\n{json.dumps(ARC)}".encode(), "q.jsonl")
    for content, words in (
        (b"", "q.jsonl has no questions"),
        (b"\n \n", "q.jsonl has no questions"),
        (b"{", "q.jsonl, line 1: not JSON"),
        (b'{"a": 1}\n\xff', "q.jsonl, line 2: not UTF-8"),
        (b"[" * 100_000, "q.jsonl, line 1: not JSON"),
    ):
        with pytest.raises(FormatError, match=words):
            parse(content, "q.jsonl")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "label", "stem"]), inner),
    max_leaves=8,
)


@given(st.sampled_from([MMLU, ARC, HELLASWAG]), st.data())
def test_whatever_is_in_a_line_is_a_question_or_an_error_with_its_line(record: Any, data: Any) -> None:
    key = data.draw(st.sampled_from(sorted(record)))
    try:
        read({**record, key: data.draw(_VALUES)})
    except FormatError as error:
        assert "q.jsonl, line 1: " in error.message
