"""What `quality` measures and what comes out: raw scores of tokens; their statistics are in `core.divergence`."""

from __future__ import annotations

import base64
import hashlib
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slmkit.core import units
from slmkit.core.behaviour import Behaviour, BehaviourReport
from slmkit.core.bench import Failure
from slmkit.core.damage import Damage
from slmkit.core.tasks import TaskResult
from slmkit.errors import UsageError

SCHEMA = 1
LEAST_CTX = 8
"""Tokens of a chunk, at least: half of them are only read."""


@dataclass(frozen=True)
class Text:
    """What is read of one domain, such as `prose` or `code`."""

    domain: str
    text: str

    @property
    def sha256(self) -> str:
        """Of its UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """Texts of one or more domains. `name` is how it is called: that of a bundled one, or a file's."""

    name: str
    texts: tuple[Text, ...]

    def __post_init__(self) -> None:
        if not self.texts:
            raise UsageError(f"the corpus {self.name} has no text")

    @property
    def sha256(self) -> str:
        """Of one text its own; of several that of the list of digests and domains, as `sha256sum` would print it."""
        if len(self.texts) == 1:
            return self.texts[0].sha256
        lines = "".join(f"{text.sha256}  {text.domain}\n" for text in self.texts)
        return hashlib.sha256(lines.encode()).hexdigest()


ALL_DOMAINS, N_DOMAINS = "all domains", 8
"""The corpus that comes with slmkit."""
LEAST_CHUNKS = 10
"""Before that the spread of chunks is not known well enough to decide anything."""


def reading(n_chunks: int, n_ctx: int, corpus_name: str, sha256: str) -> str:
    """How much was read of what: `40 chunks of 512 tokens of prose (0123456789ab)`."""
    n_domains = N_DOMAINS if corpus_name == ALL_DOMAINS else corpus_name.count(", ") + 1
    of = corpus_name if n_chunks >= n_domains else f"the first {n_chunks} of {units.several(n_domains, 'domain')}"
    return f"{units.several(n_chunks, 'chunk')} of {n_ctx} tokens of {of} ({sha256[:12]})"


@dataclass(frozen=True)
class QualitySpec:
    """How a text is read. `n_ctx` tokens make a chunk, `n_chunks` of them are read at most, in turn from each domain.

    `n_threads` `None` means the physical cores. `max_kld` and `max_ppl_ratio` are limits; with `until_decided` reading
    ends when each is clear of what is measured.
    """

    n_ctx: int = 512
    n_chunks: int | None = None
    n_threads: int | None = None
    n_gpu_layers: int = -1
    max_kld: float | None = None
    max_ppl_ratio: float | None = None
    until_decided: bool = False
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.n_ctx < LEAST_CTX:
            raise UsageError(f"n_ctx (`--ctx`) is {self.n_ctx}: it must be at least {LEAST_CTX}")
        for name in ("n_chunks", "n_threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} is {value}: it must be at least 1")
        for name in ("max_kld", "max_ppl_ratio"):
            if (limit := getattr(self, name)) is not None and not 0 < limit < math.inf:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{name} (`{option}`) is {limit}: it must be a number above 0")
        if self.until_decided and self.max_kld is None and self.max_ppl_ratio is None:
            raise UsageError(
                "nothing to decide: no limit is given", hint="`--until decided --max-kld 0.05`, or `--max-ppl-ratio`"
            )
        if self.until_decided and self.n_chunks is not None and self.n_chunks < LEAST_CHUNKS:
            raise UsageError(
                f"nothing is decided before {LEAST_CHUNKS} chunks, and {self.n_chunks} are asked for",
                hint="leave out `--chunks`: it reads no more than it takes",
            )

    def conditions(self) -> dict[str, Any]:
        """What two measurements must share to stand in one table, beside corpus and base."""
        return {"n_ctx": self.n_ctx, "n_chunks": self.n_chunks, "until_decided": self.until_decided}


@dataclass(frozen=True)
class Baseline:
    """What is saved of a base, at `path`: of which file, read from which corpus in chunks of how many tokens."""

    path: Path
    ref: str
    digest: str
    size_bytes: int
    corpus: str
    n_ctx: int


@dataclass(frozen=True)
class Chunk:
    """The scored tokens of chunk `number` of a domain's text, one value for each, in nats.

    `nll` is the negative log-likelihood of the text's own token, `kld` the KL divergence of all tokens' probabilities
    from the base's, `same_top` whether the most likely token is the base's (1 or 0). The last two are empty of the base
    itself, and where there is none.
    """

    domain: str
    number: int
    nll: array[float]
    kld: array[float] = field(default_factory=lambda: array("f"))
    same_top: array[int] = field(default_factory=lambda: array("b"))

    def document(self) -> dict[str, Any]:
        """As JSON: little-endian float32 (`same_top`: bytes) in Base64."""
        arrays: dict[str, array[Any]] = {"nll": self.nll, "kld": self.kld, "same_top": self.same_top}
        return {"domain": self.domain, "number": self.number, **{name: packed(a) for name, a in arrays.items()}}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Chunk:
        """The inverse; raises `KeyError`, `TypeError` or `ValueError`."""
        nll, kld = (unpacked(document[name], "f") for name in ("nll", "kld"))
        return cls(document["domain"], document["number"], nll, kld, unpacked(document["same_top"], "b"))


@dataclass(frozen=True)
class QualityRow:
    """One model: the scores of its chunks, or the reason why there are none.

    `defect` is what makes it broken whatever its scores are, such as a vocabulary that is not the base's. `decided` is
    whether it keeps its limits, where that was clear before the end. `damage`: where it loses, if that was looked for.
    """

    ref: str
    digest: str
    size_bytes: int
    chunks: tuple[Chunk, ...] = ()
    is_base: bool = False
    defect: str | None = None
    failure: Failure | None = None
    bpw: float | None = None
    decided: bool | None = None
    damage: Damage | None = None

    @property
    def was_read(self) -> bool:
        """Whether there is anything to say of it: it has scores, or is known to be broken."""
        return self.failure is None and bool(self.chunks or self.defect)

    @property
    def domains(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(dict.fromkeys(chunk.domain for chunk in self.chunks))

    def of_domain(self, domain: str) -> tuple[Chunk, ...]:
        """Its chunks."""
        return tuple(chunk for chunk in self.chunks if chunk.domain == domain)

    @property
    def n_tokens(self) -> int:
        """Scored tokens."""
        return sum(len(chunk.nll) for chunk in self.chunks)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        failure = None if self.failure is None else asdict(self.failure)
        document = {**plain, "failure": failure, "chunks": [chunk.document() for chunk in self.chunks]}
        if self.damage:
            document["damage"] = self.damage.document()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> QualityRow:
        """The inverse; raises `KeyError`, `TypeError` or `ValueError`."""
        return cls(
            **{name: document[name] for name in _PLAIN},
            failure=Failure.from_document(document["failure"]),
            chunks=tuple(Chunk.from_document(chunk) for chunk in document["chunks"]),
            damage=Damage.from_document(document["damage"]) if "damage" in document else None,
        )


_PLAIN = ("ref", "digest", "size_bytes", "is_base", "defect", "bpw", "decided")


@dataclass(frozen=True)
class QualityRun:
    """The rows of one model beside their base, on one corpus. `corpus` is the digest of `corpus_name`.

    `base` is the digest of the file that the others were held against, `None` where there was none. `peak_rss` is that
    of the measuring process in bytes; all models together where they fitted, else the base and the largest. `tasks` are
    the answers of the base and the others, if they were asked questions, `behaviour` what they wrote after prompts.
    """

    created: str
    host: Mapping[str, Any]
    build: Mapping[str, str]
    corpus_name: str
    corpus: str
    spec: QualitySpec
    base: str | None
    rows: tuple[QualityRow, ...]
    slmkit: str = ""
    peak_rss: int | None = None
    elapsed_s: float | None = None
    base_precision: str = "exact"
    warnings: tuple[str, ...] = ()
    tasks: tuple[TaskResult, ...] = ()
    behaviour: BehaviourReport | None = None

    @property
    def base_row(self) -> QualityRow | None:
        """The base's own."""
        return next((row for row in self.rows if row.is_base), None)

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Of its rows, where that was looked for."""
        return tuple(row.damage for row in self.rows if row.damage)

    def with_damage(self, found: Sequence[Damage]) -> QualityRun:
        """The same run, whose rows say where they lose."""
        known = {damage.digest: damage for damage in found}
        rows = (replace(row, damage=known.get(row.digest, row.damage)) for row in self.rows)
        return replace(self, rows=tuple(rows))

    @property
    def measured(self) -> tuple[QualityRow | TaskResult | Behaviour, ...]:
        """All that may have failed: what was read, answered and written."""
        written = (self.behaviour.reference, *self.behaviour.rows) if self.behaviour else ()
        return (*self.rows, *self.tasks, *written)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        rows = [row.document() for row in self.rows]
        plain = {name: getattr(self, name) for name in _RUN}
        document = {"schema": SCHEMA, "kind": "quality", **plain, "spec": asdict(self.spec), "rows": rows}
        if self.tasks:
            document["tasks"] = [result.document() for result in self.tasks]
        if self.behaviour:
            document["behaviour"] = self.behaviour.document()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> QualityRun:
        """The inverse; raises `KeyError`, `TypeError` or `ValueError` for something else."""
        if document["kind"] != "quality" or document["schema"] != SCHEMA:
            raise ValueError(f"not a quality run of schema {SCHEMA}")
        values = {name: document[name] for name in _RUN}
        return cls(
            **{**values, "warnings": tuple(values["warnings"])},
            spec=QualitySpec(**document["spec"]),
            rows=tuple(QualityRow.from_document(row) for row in document["rows"]),
            tasks=tuple(TaskResult.from_document(each) for each in document.get("tasks", ())),
            behaviour=BehaviourReport.from_document(document["behaviour"]) if "behaviour" in document else None,
        )


_RUN = (
    "created",
    "host",
    "build",
    "corpus_name",
    "corpus",
    "base",
    "slmkit",
    "peak_rss",
    "elapsed_s",
    "base_precision",
    "warnings",
)


def in_turn(n_chunks: Mapping[str, int], most: int | None = None) -> list[tuple[str, int]]:
    """Domain and number of each chunk that is read: one of each domain after the other, as many of each.

    So a part of it from the beginning is fair to all. `most` bounds their number.
    """
    each = min(n_chunks.values())
    order = [(domain, number) for number in range(each) for domain in n_chunks]
    return order[:most]


def packed(values: array[Any]) -> str:
    """Numbers as Base64, little-endian."""
    return base64.b64encode(_little_endian(values).tobytes()).decode("ascii")


def unpacked(text: str, kind: str) -> array[Any]:
    """The inverse; `kind` is the array's type code. Raises `ValueError`."""
    values: array[Any] = array(kind)
    values.frombytes(base64.b64decode(text, validate=True))
    return _little_endian(values)


def _little_endian(values: array[Any]) -> array[Any]:
    if sys.byteorder == "little":
        return values
    swapped = array(values.typecode, values)
    swapped.byteswap()
    return swapped


def tokens_of(chunks: Sequence[Chunk], name: str) -> Iterator[float]:
    """The values `name` (`nll`, `kld`, `same_top`) of all their tokens."""
    for chunk in chunks:
        yield from getattr(chunk, name)
