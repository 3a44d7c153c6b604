"""The parent's side of answering multiple-choice questions: one typed call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.tasks import DELIMITER, Question


@dataclass(frozen=True)
class Answers:
    """Of each choice of each question the logarithm of its probability, and its tokens; `n_cut` questions were longer
    than the model takes.
    """

    logs: tuple[tuple[float, ...], ...]
    n_tokens: tuple[tuple[int, ...], ...]
    n_cut: int
    build: Mapping[str, str]


def choices(
    path: Path, questions: Sequence[Question], *, n_threads: int, on_answered: Callable[[int], None]
) -> Answers:
    """Ask the model in a GGUF; `on_answered` is called with the number of questions that have just been answered.

    Raises the engine's errors.
    """

    def listen(event: Event, _: int) -> None:
        if event["event"] == "answered":
            on_answered(event["n"])

    asked = [
        {"context": question.context, "choices": [DELIMITER + choice for choice in question.choices]}
        for question in questions
    ]
    arguments = {"path": str(path), "questions": asked, "n_threads": n_threads}
    result = run("choices", arguments, listen=listen)
    return Answers(
        logs=tuple(map(tuple, result["logs"])),
        n_tokens=tuple(map(tuple, result["n_tokens"])),
        n_cut=result["n_cut"],
        build=dict(result["build"]),
    )
