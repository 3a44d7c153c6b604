"""Multiple-choice questions as JSON lines, in the forms in which MMLU, ARC and HellaSwag are published.

What is asked of the model is what lm-evaluation-harness asks with no examples before (zero-shot): in lm_eval/tasks of
https://github.com/EleutherAI/lm-evaluation-harness the files `mmlu/default/_default_template_yaml` (at 00859825),
`arc/arc_easy.yaml` (at 0671c9cc) and `hellaswag/utils.py` (at 0a9cc282).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from slmkit.core.tasks import Form, Question, TaskSpec
from slmkit.errors import FormatError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EXPECTED = (
    "expected the keys of MMLU (question, choices, answer), ARC (question, choices, answerKey) or HellaSwag (ctx, "
    "endings, label)"
)

_BRACKETS = re.compile(r"\[.*?\]")


class _WrongError(Exception):
    """What is wrong with a line, in words."""


def parse(content: bytes, name: str) -> TaskSpec:
    """The questions in a file that is called `name`, one JSON object a line; empty lines are passed over.

    Raises `FormatError` with file and line.
    """
    questions: list[Question] = []
    form: Form | None = None
    for number, line in enumerate(_text(content, name).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = _record(line)
            found = _form(record)
            if form not in (None, found):
                raise _WrongError(f"this line is in the form of {found}, those before of {form}: one form for a file")
            form = found
            questions.append(_READERS[found](record, f"line {number}"))
        except _WrongError as error:
            raise FormatError(f"{name}, line {number}: {error}") from error
    if form is None:
        raise FormatError(f"{name} has no questions: {EXPECTED}, one JSON object a line")
    return TaskSpec(name, form, hashlib.sha256(content).hexdigest(), tuple(questions))


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{name}, line {line}: not UTF-8 text") from error


def _record(line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _WrongError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise _WrongError("a JSON object is wanted")
    return record


def _form(record: Mapping[str, Any]) -> Form:
    if "endings" in record:
        return "hellaswag"
    if "answerKey" in record:
        return "arc"
    if "choices" in record and "answer" in record:
        return "mmlu"
    raise _WrongError(EXPECTED)


def _mmlu(record: Mapping[str, Any], place: str) -> Question:
    """The choices are listed after letters, and a letter is what is scored. The subject is named before when there is
    one; the harness has that line in the file of each subject.
    """
    choices = _texts(record["choices"], "choices")
    letters = tuple(LETTERS[: len(choices)])
    domain = _optional(record, "subject")
    about = f"The following are multiple choice questions (with answers) about {_spaced(domain)}.\n\n" if domain else ""
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(letters, choices, strict=True))
    context = f"{about}{_string(record, 'question').strip()}\n{listed}Answer:"
    return Question(context, letters, _index(record["answer"], letters, "answer"), _name(record, place), domain)


def _arc(record: Mapping[str, Any], place: str) -> Question:
    """The text of each choice is scored. The dataset itself nests: `question.stem` and a list of text and label."""
    asked, choices = record.get("question"), record.get("choices")
    if isinstance(asked, dict):
        choices = asked.get("choices", choices)
        asked = asked.get("stem")
    if not isinstance(asked, str):
        raise _WrongError("`question`: a text, or an object with `stem`, is wanted")
    if isinstance(choices, dict):
        texts, labels = choices.get("text"), choices.get("label")
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        texts, labels = ([choice.get(key) for choice in choices] for key in ("text", "label"))
    else:
        raise _WrongError("`choices`: an object with `text` and `label`, or a list of such, is wanted")
    known = _texts(labels, "choices.label")
    found = _texts(texts, "choices.text")
    if len(known) != len(found):
        raise _WrongError(f"`choices`: {len(found)} texts and {len(known)} labels")
    key = record["answerKey"]
    if key not in known:
        raise _WrongError(f"`answerKey` is {key!r}: one of {', '.join(known)}")
    domain = _optional(record, "subject")
    return Question(f"Question: {asked}\nAnswer:", found, known.index(key), _name(record, place), domain)


def _hellaswag(record: Mapping[str, Any], place: str) -> Question:
    """The endings are scored after the activity and what happens before.

    Its parts WikiHow and ActivityNet have marks in brackets, which are taken out. The second part of the context
    is written large as Python's `capitalize` does it: what follows its first letter becomes small, names too.
    """
    if isinstance(record.get("ctx_a"), str):
        context = f"{record['ctx_a']} {_optional(record, 'ctx_b', empty=True).capitalize()}"
    else:
        context = _string(record, "ctx")
    activity = _optional(record, "activity_label")
    endings = tuple(map(_without_brackets, _texts(record["endings"], "endings")))
    if not all(endings):
        raise _WrongError("`endings`: one is empty but for what is in brackets")
    label = record.get("label")
    if isinstance(label, str) and label.strip().isdigit():
        label = int(label)
    return Question(
        _without_brackets(f"{activity}: {context}" if activity else context),
        endings,
        _index(label, endings, "label"),
        _name(record, place),
        activity,
    )


_READERS: Mapping[Form, Callable[[Mapping[str, Any], str], Question]] = {
    "mmlu": _mmlu,
    "arc": _arc,
    "hellaswag": _hellaswag,
}


def _without_brackets(text: str) -> str:
    """As the harness cleans HellaSwag: a title in a text becomes a new sentence, other marks go, and double spaces."""
    return _BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _string(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _WrongError(f"`{key}`: a text is wanted")
    return value


def _optional(record: Mapping[str, Any], key: str, *, empty: bool = False) -> Any:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise _WrongError(f"`{key}`: a text is wanted")
    return value or ("" if empty else None)


def _texts(values: Any, key: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise _WrongError(f"`{key}`: a list of texts is wanted, none of them empty")
    if not 2 <= len(values) <= len(LETTERS):
        raise _WrongError(f"`{key}`: {len(values)} of them: 2 to {len(LETTERS)} are wanted")
    return tuple(values)


def _index(value: Any, choices: tuple[str, ...], key: str) -> int:
    """A number from 0 on, or a letter."""
    if isinstance(value, str) and len(value.strip()) == 1 and value.strip().upper() in LETTERS:
        value = LETTERS.index(value.strip().upper())
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(choices):
        raise _WrongError(f"`{key}` is {value!r}: a number from 0 to {len(choices) - 1}, or the letter, is wanted")
    return value


def _name(record: Mapping[str, Any], place: str) -> str:
    for key in ("id", "ind"):
        if isinstance(record.get(key), str | int) and not isinstance(record[key], bool):
            return str(record[key])
    return place


def _spaced(subject: str) -> str:
    return subject.replace("_", " ")
