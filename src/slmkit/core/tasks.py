"""Multiple-choice questions, and how a model answered them.

Scored as lm-evaluation-harness does, `process_results` of
https://github.com/EleutherAI/lm-evaluation-harness/blob/44406dc3a40ef3f74cb82e967fa31cd1880ed525/lm_eval/api/task.py:
the answer is the choice whose text is most likely after the question (`acc`), or most likely for each of its characters
(`acc_norm`; the harness's documents say bytes, its code counts characters). Of equals the first counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from slmkit.core.bench import Failure
from slmkit.core.proportion import Paired, Proportion
from slmkit.errors import UsageError

DELIMITER = " "
"""Between a question and a choice: the harness's `target_delimiter`."""

Form = Literal["mmlu", "arc", "hellaswag"]
Measure = Literal["acc", "acc_norm"]


@dataclass(frozen=True)
class Question:
    """`choices` are what is scored after `context` and a space; `answer` is the index of the right one."""

    context: str
    choices: tuple[str, ...]
    answer: int
    name: str
    domain: str | None = None


@dataclass(frozen=True)
class TaskSpec:
    """The questions of one file. `sha256` is of the file: results of unlike files are never compared."""

    name: str
    form: Form
    sha256: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Scored:
    """How likely each choice of one question was.

    `logs` are natural logarithms of the probability of the choice's text after the question, one for each choice, as
    are `n_chars`, `n_bytes` (of UTF-8) and `n_tokens`. The delimiter is in `logs` and `n_tokens`, and not in the
    lengths of the text.
    """

    name: str
    domain: str | None
    answer: int
    logs: tuple[float, ...]
    n_chars: tuple[int, ...]
    n_bytes: tuple[int, ...]
    n_tokens: tuple[int, ...]

    def picked(self, measure: Measure) -> int:
        """The index of the choice that it took."""
        if measure == "acc":
            values = list(self.logs)
        else:
            values = [log / n for log, n in zip(self.logs, self.n_chars, strict=True)]
        return values.index(max(values))

    def is_right(self, measure: Measure) -> bool:
        """Whether that is the answer."""
        return self.picked(measure) == self.answer


@dataclass(frozen=True)
class TaskResult:
    """How one model answered, or the reason why there is nothing. `n_cut` questions were too long for it: their
    beginnings were left out. `build` is the engine.
    """

    ref: str
    digest: str
    task: str
    form: Form
    task_sha256: str
    scored: tuple[Scored, ...] = ()
    n_cut: int = 0
    build: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def measure(self) -> Measure:
        """What is quoted of this form: `acc` of MMLU, whose choices are letters, else `acc_norm`."""
        return "acc" if self.form == "mmlu" else "acc_norm"

    @property
    def chance(self) -> float | None:
        """The share that guessing gets right; `None` of nothing."""
        shares = [1 / len(scored.logs) for scored in self.scored]
        return sum(shares) / len(shares) if shares else None

    def accuracy(self, measure: Measure | None = None) -> Proportion:
        """The share of right answers, and its interval; by default of what is quoted."""
        return _right(self.scored, measure or self.measure)

    def by_domain(self, measure: Measure | None = None) -> dict[str, Proportion]:
        """The same for each domain that the questions name, in their order."""
        domains = dict.fromkeys(scored.domain for scored in self.scored if scored.domain is not None)
        return {
            domain: _right((scored for scored in self.scored if scored.domain == domain), measure or self.measure)
            for domain in domains
        }

    def against(self, base: TaskResult, measure: Measure | None = None) -> Paired:
        """Question by question, `base` first; raises `UsageError` unless both answered the same ones."""
        pairs = self._pairs(base)
        measure = measure or self.measure
        right = [(first.is_right(measure), second.is_right(measure)) for first, second in pairs]
        return Paired(
            n_both=right.count((True, True)),
            n_only_first=right.count((True, False)),
            n_only_second=right.count((False, True)),
            n_neither=right.count((False, False)),
        )

    def n_changed(self, base: TaskResult, measure: Measure | None = None) -> int:
        """How many questions it answered otherwise, right or wrong: a quant moves more answers than its accuracy says.

        Raises `UsageError` as `against`.
        """
        measure = measure or self.measure
        return sum(first.picked(measure) != second.picked(measure) for first, second in self._pairs(base))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TaskResult:
        """The inverse of `document`; raises `KeyError` or `TypeError` for something else."""
        scored = tuple(Scored(**{name: _plain(value) for name, value in each.items()}) for each in document["scored"])
        return cls(
            **{
                **document,
                "scored": scored,
                "failure": Failure.from_document(document["failure"]),
            }
        )

    def _pairs(self, base: TaskResult) -> list[tuple[Scored, Scored]]:
        if base.failure or self.failure:
            failed = base if base.failure else self
            raise UsageError(f"{failed.ref} has no answers to {self.task}: nothing to compare")
        if base.task_sha256 != self.task_sha256:
            raise UsageError(f"{base.ref} and {self.ref} were asked different questions: {base.task} and {self.task}")
        return list(zip(base.scored, self.scored, strict=True))


def _right(scored: Iterable[Scored], measure: Measure) -> Proportion:
    right = [each.is_right(measure) for each in scored]
    return Proportion(sum(right), len(right))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
