"""The child's side of letting a model write, always the likeliest token. Imported in child processes only.

Answers are written several at a time, each in a sequence of its own. One that has ended is decoded on, to nothing: so
every batch has the same size, and what the engine computes for one answer does not depend on when the others end.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Tokens
from slmkit.backends.llamacpp.grammar import Grammar, grammars
from slmkit.backends.llamacpp.native import ll
from slmkit.backends.llamacpp.sequences import Part, Sequences

TOGETHER = 8
"""Answers that are written at the same time."""
N_BATCH = 512

Pick = Callable[[bindings.Floats], int | None]


@dataclass
class _Answer:
    """One in the making: `pick` takes the next token, `accept` is told of it. `is_over`: nothing more comes; `ended`:
    because the model was done.
    """

    prompt: Tokens
    pick: Pick
    accept: Callable[[int], None]
    tokens: list[int] = field(default_factory=list)
    is_over: bool = False
    ended: bool = False


def greedy(
    channel: Channel, path: str, prompts: Sequence[Mapping[str, Any]], n_gen: int, grammar: str, n_threads: int
) -> dict[str, Any]:
    """At most `n_gen` tokens after each prompt as `free`, and for those that are `constrained` once more under the
    `grammar`, as `constrained`; each has `tokens`, `text` and `ended`.

    A prompt has a `text`; it is put into the model's chat template where llama.cpp knows that.
    """
    bindings.forward_log(channel)
    with bindings.model(path) as model:
        texts = Sequences(model, None, 1)
        template = ll.llama_model_chat_template(model, None)
        chats = [_chat(template, prompt["text"]) for prompt in prompts]
        is_chat = None not in chats
        tokens = [
            texts.tokenize(prompt["text"] if chat is None or not is_chat else chat, special=is_chat)
            for prompt, chat in zip(prompts, chats, strict=True)
        ]
        if not all(map(len, tokens)):
            raise bindings.NativeError("its tokenizer makes no token of a prompt")
        restricted = [each for each, prompt in zip(tokens, prompts, strict=True) if prompt["constrained"]]
        with (
            _sequences(model, max(map(len, tokens), default=1) + n_gen, n_threads) as sequences,
            grammars(model, grammar, len(restricted)) as rules,
        ):
            write = _Writer(channel, sequences, n_gen)
            free = write([_Answer(each, _likeliest, _forget) for each in tokens])
            constrained = write([_under(rule, each) for rule, each in zip(rules, restricted, strict=True)])
    return {
        "free": free,
        "constrained": constrained,
        "is_chat": is_chat,
        "tokens_sha256": hashlib.sha256(repr([each.tolist() for each in tokens]).encode()).hexdigest(),
        "build": bindings.build(),
    }


class _Writer:
    """Writes answers, `TOGETHER` at a time."""

    def __init__(self, channel: Channel, sequences: Sequences, n_gen: int) -> None:
        self._channel, self._sequences, self._n_gen = channel, sequences, n_gen

    def __call__(self, answers: Sequence[_Answer]) -> list[dict[str, Any]]:
        """All of them, to their ends."""
        for start in range(0, len(answers), TOGETHER):
            group = answers[start : start + TOGETHER]
            self._write(group)
            self._channel.send("written", n=len(group))
        return [self._told(answer) for answer in answers]

    def _write(self, group: Sequence[_Answer]) -> None:
        self._sequences.clear()
        parts = [
            Part(int(token), i, seq, i == len(answer.prompt) - 1)
            for seq, answer in enumerate(group)
            for i, token in enumerate(answer.prompt)
        ]
        for n in range(self._n_gen):
            following = []
            for answer, (_, logits) in zip(group, self._sequences.decode(parts), strict=True):
                following.append(self._take(answer, logits))
            if all(answer.is_over for answer in group):
                return
            parts = [
                Part(token, len(answer.prompt) + n, seq, True)
                for seq, (answer, token) in enumerate(zip(group, following, strict=True))
            ]

    def _take(self, answer: _Answer, logits: bindings.Floats) -> int:
        """The next token of an answer, or any when it is over."""
        if not np.isfinite(logits.max()):
            raise bindings.NativeError("the model's output is not finite (NaN or infinity)")
        token = None if answer.is_over else answer.pick(logits)
        if token is None or self._sequences.ends(token):
            answer.ended = answer.ended or token is not None
            answer.is_over = True
            return 0
        answer.accept(token)
        answer.tokens.append(token)
        return token

    def _told(self, answer: _Answer) -> dict[str, Any]:
        text = b"".join(map(self._sequences.piece, answer.tokens)).decode("utf-8", "replace")
        return {"tokens": answer.tokens, "text": text, "ended": answer.ended}


def _likeliest(logits: bindings.Floats) -> int:
    """Of equals the first."""
    return int(logits.argmax())


def _forget(token: int) -> None:
    """Nothing keeps a state."""


def _under(rule: Grammar, prompt: Tokens) -> _Answer:
    return _Answer(prompt, rule.pick, rule.accept)


@contextmanager
def _sequences(model: bindings.Pointer, n_tokens: int, n_threads: int) -> Iterator[Sequences]:
    """As many as are written at a time, each of `n_tokens` at most."""
    with bindings.context(
        model, n_ctx=TOGETHER * n_tokens, n_batch=N_BATCH, n_ubatch=N_BATCH, n_threads=n_threads, n_seqs=TOGETHER
    ) as context:
        yield Sequences(model, context, N_BATCH)


def _chat(template: bytes | None, text: str) -> str | None:
    """One message of a user in the model's chat template, and the beginning of the answer; `None` without a template
    or where llama.cpp does not know it.
    """
    if not template:
        return None
    message = (ll.llama_chat_message * 1)(ll.llama_chat_message(role=b"user", content=text.encode()))
    size = 0
    while True:
        buffer = ctypes.create_string_buffer(size + 1)
        length = ll.llama_chat_apply_template(template, message, 1, True, buffer, size)
        if length < 0:
            return None
        if length <= size:
            return buffer.raw[:length].decode()
        size = length
