"""What models write when they always take the likeliest token, and where a quant writes something else.

Everything here is computed from the tokens and texts, and the same for the same ones.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from slmkit.core.bench import Failure
from slmkit.core.proportion import Proportion
from slmkit.errors import UsageError

N_GEN = 64
"""Tokens that are generated after each prompt, at most."""
LOOP_CYCLE = 16
"""Tokens that repeat in a loop, at most."""
LOOP_REPEATS = 3
"""How often they come at the end, at least."""
LOOP_TOKENS = 12
"""How long the repetition is, at least: three line breaks are none."""
_END = -1
"""In the place of whichever token ended an answer."""


@dataclass(frozen=True)
class Prompt:
    """`keys` are those of the JSON object that it asks for; empty when it asks for something else."""

    name: str
    kind: str
    text: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one file; `sha256` is of the file."""

    sha256: str
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Generation:
    """The tokens of an answer, without the one that ended it, and their text. `ended`: the model was done, else it
    was stopped after as many tokens as were asked for.
    """

    tokens: tuple[int, ...]
    text: str
    ended: bool

    @property
    def is_loop(self) -> bool:
        """Whether it got caught: it did not come to an end, and its last tokens are a cycle of 1 to 16 tokens, 3 times
        or more in a row and 12 tokens or more together.
        """
        return not self.ended and any(self._repeats(cycle) for cycle in range(1, LOOP_CYCLE + 1))

    @property
    def path(self) -> tuple[int, ...]:
        """Its tokens, and that it ended."""
        return (*self.tokens, _END) if self.ended else self.tokens

    def _repeats(self, cycle: int) -> bool:
        n = cycle * max(LOOP_REPEATS, math.ceil(LOOP_TOKENS / cycle))
        tail = self.tokens[-n:]
        return len(tail) == n and tail[cycle:] == tail[:-cycle]


@dataclass(frozen=True)
class Answer:
    """What a model wrote after one prompt: freely, and where it asks for JSON (`keys`) once more under a grammar that
    lets nothing else through.
    """

    prompt: str
    keys: tuple[str, ...]
    free: Generation
    constrained: Generation | None = None


@dataclass(frozen=True)
class Departure:
    """After how many tokens a quant left the reference's path after one prompt.

    When it never did (`left` is false) `n_tokens` is how many the reference was asked for: it is at least that many.
    """

    prompt: str
    n_tokens: int
    left: bool


@dataclass(frozen=True)
class Agreement:
    """Of all prompts, in their order."""

    departures: tuple[Departure, ...]

    @property
    def median_tokens(self) -> float | None:
        """After how many tokens the path is left; `None` of no prompts. See `is_censored`."""
        found = [departure.n_tokens for departure in self.departures]
        return statistics.median(found) if found else None

    @property
    def is_censored(self) -> bool:
        """Half of the prompts or more never left it: the median is at least what it says."""
        same = self.same
        return 2 * same.n_yes >= same.n > 0

    @property
    def same(self) -> Proportion:
        """The answers that are the reference's, token by token."""
        return Proportion(sum(not departure.left for departure in self.departures), len(self.departures))


@dataclass(frozen=True)
class Behaviour:
    """What one model wrote, or the reason why there is nothing.

    `n_gen` tokens at most after each prompt. `prompts_sha256` is of the prompts' file, `tokens_sha256` of the prompts
    in tokens: models with another vocabulary or another chat template have another one, and are not compared.
    `is_chat`: the prompts were put into the model's chat template; else they went in as they are.
    """

    ref: str
    digest: str
    prompts_sha256: str
    n_gen: int
    answers: tuple[Answer, ...] = ()
    tokens_sha256: str = ""
    is_chat: bool = False
    build: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def loops(self) -> Proportion:
        """The free answers that got caught in a loop."""
        return Proportion(sum(answer.free.is_loop for answer in self.answers), len(self.answers))

    def valid_json(self, *, constrained: bool = False, with_keys: bool = False) -> Proportion:
        """Of the prompts that ask for JSON those whose answer begins with a whole object (see `json_object`), freely or
        under the grammar; `with_keys` only those that have all keys that were asked for.

        The grammar does not help an answer that does not come to its end within `n_gen` tokens.
        """
        found = [_valid(answer, constrained, with_keys) for answer in self.answers if answer.keys]
        return Proportion(sum(found), len(found))

    def agreement(self, reference: Behaviour) -> Agreement:
        """Where it leaves the reference's path; raises `UsageError` when the two cannot be compared."""
        for each in (reference, self):
            if each.failure:
                raise UsageError(f"{each.ref} has no answers: nothing to compare")
        if (reference.prompts_sha256, reference.n_gen) != (self.prompts_sha256, self.n_gen):
            raise UsageError(f"{reference.ref} and {self.ref} were asked different things")
        if reference.tokens_sha256 != self.tokens_sha256:
            raise UsageError(f"{self.ref} reads the prompts in other tokens than {reference.ref}: another vocabulary")
        pairs = zip(reference.answers, self.answers, strict=True)
        return Agreement(tuple(_departure(first, second, self.n_gen) for first, second in pairs))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Behaviour:
        """The inverse of `document`; raises `KeyError` or `TypeError` for something else."""
        return cls(
            **{
                **document,
                "answers": tuple(_answer_of(answer) for answer in document["answers"]),
                "failure": Failure.from_document(document["failure"]),
            }
        )


@dataclass(frozen=True)
class BehaviourReport:
    """The reference, and the models that are held against it."""

    reference: Behaviour
    rows: tuple[Behaviour, ...]

    def agreement(self, row: Behaviour) -> Agreement | None:
        """Where a row leaves the reference's path; `None` where the two cannot be compared."""
        try:
            return row.agreement(self.reference)
        except UsageError:
            return None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BehaviourReport:
        """The inverse of `document`; raises `KeyError` or `TypeError` for something else."""
        reference = Behaviour.from_document(document["reference"])
        return cls(reference, tuple(Behaviour.from_document(row) for row in document["rows"]))


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object (RFC 8259) that an answer begins with; `None` when it does not, or breaks off.

    White space and the fence of a code block may come before it; what comes after it is not looked at: models without a
    chat template do not know that they are done.
    """
    text = text.lstrip()
    if text.startswith("```"):
        text = text.removeprefix("```").removeprefix("json").lstrip()
    try:
        found, _ = json.JSONDecoder(parse_constant=_no_number).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # Python would take NaN and Infinity


def _valid(answer: Answer, constrained: bool, with_keys: bool) -> bool:
    generation = answer.constrained if constrained else answer.free
    found = json_object(generation.text) if generation else None
    return found is not None and (not with_keys or set(answer.keys) <= set(found))


def _departure(first: Answer, second: Answer, n_gen: int) -> Departure:
    same = _n_same(first.free.path, second.free.path)
    left = same < max(len(first.free.path), len(second.free.path))
    return Departure(first.prompt, same if left else n_gen, left)


def _n_same(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _answer_of(document: Mapping[str, Any]) -> Answer:
    constrained = document["constrained"]
    return Answer(
        prompt=document["prompt"],
        keys=tuple(document["keys"]),
        free=_generation_of(document["free"]),
        constrained=None if constrained is None else _generation_of(constrained),
    )


def _generation_of(document: Mapping[str, Any]) -> Generation:
    return Generation(**{**document, "tokens": tuple(document["tokens"])})
