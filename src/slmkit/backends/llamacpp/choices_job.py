"""The child's side of answering multiple-choice questions. Imported in child processes only.

Where a choice begins is decided as lm-evaluation-harness does (`TemplateLM._encode_pair`,
https://github.com/EleutherAI/lm-evaluation-harness/blob/04e74420b0000ea417f1d44b23c6e298b04b7977/lm_eval/api/model.py):
spaces at the end of the question count to the choice, the two are tokenized together, and what goes beyond as many
tokens as the question alone has is the choice. BOS is there where the vocabulary wants it, as with llama.cpp's server.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Tokens
from slmkit.backends.llamacpp.native import ll
from slmkit.backends.llamacpp.sequences import Part, Sequences

N_BATCH = 512
"""Questions whose tokens, and those of all choices, are no more than these are decoded together."""
MOST_SEQS = 32
"""Choices of questions that are decoded together, at most."""


@dataclass(frozen=True)
class _Asked:
    """A question in tokens; `is_cut`: its beginning is left out."""

    context: Tokens
    choices: tuple[Tokens, ...]
    is_cut: bool = False

    @property
    def n_cells(self) -> int:
        """Tokens in the context: of each choice all but the last, after which nothing is asked."""
        return len(self.context) + sum(len(choice) - 1 for choice in self.choices)


def choices(channel: Channel, path: str, questions: Sequence[Mapping[str, Any]], n_threads: int) -> dict[str, Any]:
    """The logarithm of the probability of each choice after its question, as `logs`, and its `n_tokens`.

    A question has `context` and `choices`, texts with the delimiter between them. It is decoded once: all its choices
    go on from there.
    """
    bindings.forward_log(channel)
    with bindings.model(path) as model:
        texts = Sequences(model, None, 1)
        most = int(ll.llama_model_n_ctx_train(model))
        asked = [
            _cut(_tokens(texts, question["context"], question["choices"]), most, keep_first=texts.bos is not None)
            for question in questions
        ]
        has_state = ll.llama_model_is_recurrent(model) or ll.llama_model_is_hybrid(model)
        together = list(_together(asked, 1 if has_state else MOST_SEQS))
        logs: list[list[float]] = []
        with bindings.context(
            model,
            n_ctx=max([N_BATCH, *(sum(each.n_cells for each in group) for group in together)]),
            n_batch=N_BATCH,
            n_ubatch=N_BATCH,
            n_threads=n_threads,
            n_seqs=max((_n_seqs(group) for group in together), default=1),
            unified=True,
        ) as context:
            sequences = Sequences(model, context, N_BATCH)
            for group in together:
                logs += _answer(sequences, group)
                channel.send("answered", n=len(group))
    return {
        "logs": logs,
        "n_tokens": [[len(choice) for choice in each.choices] for each in asked],
        "n_cut": sum(each.is_cut for each in asked),
        "build": bindings.build(),
    }


def _tokens(texts: Sequences, context: str, choices: Iterable[str]) -> _Asked:
    """Spaces before the choice belong to it: in most vocabularies they are part of its first token."""
    bare = context.rstrip()
    before = texts.tokenize(bare)
    found = []
    for choice in choices:
        after = texts.tokenize(context + choice)[len(before) :]
        if not len(after):
            raise bindings.NativeError(f"the choice {choice!r} has no token of its own after {bare[-40:]!r}")
        found.append(after)
    if not len(before):
        raise bindings.NativeError(f"there is nothing before the choices {list(choices)!r}")
    return _Asked(before, tuple(found))


def _cut(asked: _Asked, most: int, *, keep_first: bool) -> _Asked:
    """As much from the end of the question as leaves room for its longest choice in `most` tokens, and BOS."""
    room = most - max(len(choice) - 1 for choice in asked.choices)
    context = asked.context
    if len(context) <= room:
        return asked
    if room <= keep_first:
        raise bindings.NativeError(f"a choice is longer than the {most} tokens that the model takes")
    first = context[:1] if keep_first else context[:0]
    return replace(asked, context=np.concatenate([first, context[len(context) - room + len(first) :]]), is_cut=True)


def _together(asked: Iterable[_Asked], most_seqs: int) -> Iterator[list[_Asked]]:
    """Questions that go into one batch; one whose choices are more than `most_seqs` goes alone."""
    group: list[_Asked] = []
    for each in asked:
        if group and (sum(a.n_cells for a in (*group, each)) > N_BATCH or _n_seqs((*group, each)) > most_seqs):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _n_seqs(group: Iterable[_Asked]) -> int:
    return sum(len(each.choices) for each in group)


def _answer(sequences: Sequences, group: Sequence[_Asked]) -> list[list[float]]:
    """Sums over the tokens of each choice of each question. The first ones come after the questions, all the others
    after the choices' own tokens.
    """
    sequences.clear()
    starts = [0, *itertools.accumulate(len(each.choices) for each in group)]
    parts: list[Part] = []
    for each, seq in zip(group, starts, strict=False):
        last = len(each.context) - 1
        parts += [Part(int(token), i, seq, i == last) for i, token in enumerate(each.context)]
    sums: list[NDArray[np.float64]] = []
    for each, (_, logits) in zip(group, sequences.decode(parts), strict=True):
        sums.append(_logs(logits, np.array([choice[0] for choice in each.choices])))
    parts, targets = [], []
    for i, (each, seq) in enumerate(zip(group, starts, strict=False)):
        for j in range(1, len(each.choices)):
            sequences.fork(seq, seq + j)
        for j, choice in enumerate(each.choices):
            for place, (token, following) in enumerate(itertools.pairwise(choice.tolist()), len(each.context)):
                parts.append(Part(token, place, seq + j, True))
                targets.append((i, j, following))
    for (i, j, following), (_, logits) in zip(targets, sequences.decode(parts), strict=True):
        sums[i][j] += _logs(logits, np.array([following]))[0]
    return [each.tolist() for each in sums]


def _logs(logits: bindings.Floats, tokens: NDArray[Any]) -> NDArray[np.float64]:
    """ln of the probability of some tokens. The exponentials are float32, of which no sum of a whole vocabulary is
    exact: that is float64.
    """
    top = logits.max()
    total = np.exp(logits - top).sum(dtype=np.float64)
    logs: NDArray[np.float64] = logits[tokens].astype(np.float64) - float(top) - math.log(total)
    if not np.isfinite(logs).all():
        raise bindings.NativeError("the model's output is not finite (NaN or infinity)")
    return logs
