"""The parent's side of letting a model write: one typed call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.behaviour import Answer, Generation, Prompt


@dataclass(frozen=True)
class Written:
    """The answers to the prompts; `tokens_sha256` is of the prompts in tokens, `is_chat` whether the model's chat
    template was used.
    """

    answers: tuple[Answer, ...]
    tokens_sha256: str
    is_chat: bool
    build: Mapping[str, str]


def greedy(
    path: Path,
    prompts: Sequence[Prompt],
    *,
    n_gen: int,
    grammar: str,
    n_threads: int,
    on_written: Callable[[int], None],
) -> Written:
    """Let the model in a GGUF answer each prompt with the likeliest tokens, `n_gen` at most, and those that ask for
    JSON once more under the `grammar` (GBNF); `on_written` is called with the number of answers that are just done.

    Raises the engine's errors.
    """

    def listen(event: Event, _: int) -> None:
        if event["event"] == "written":
            on_written(event["n"])

    arguments = {
        "path": str(path),
        "prompts": [{"text": prompt.text, "constrained": bool(prompt.keys)} for prompt in prompts],
        "n_gen": n_gen,
        "grammar": grammar,
        "n_threads": n_threads,
    }
    result = run("greedy", arguments, listen=listen)
    constrained = map(_generation, result["constrained"])
    return Written(
        answers=tuple(
            Answer(prompt.name, prompt.keys, _generation(free), next(constrained) if prompt.keys else None)
            for prompt, free in zip(prompts, result["free"], strict=True)
        ),
        tokens_sha256=result["tokens_sha256"],
        is_chat=result["is_chat"],
        build=dict(result["build"]),
    )


def _generation(document: Mapping[str, Any]) -> Generation:
    return Generation(tuple(document["tokens"]), document["text"], document["ended"])
