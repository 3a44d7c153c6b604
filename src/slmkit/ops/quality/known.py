"""What has been read already: the newest scores of files, for those who would not read them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slmkit.core.artifact import Artifact
from slmkit.core.divergence import Scores, scores, verdict
from slmkit.core.quality import Corpus, QualityRow, QualityRun, QualitySpec
from slmkit.registry import runs
from slmkit.registry.store import Registry

KIND = "quality"
_ENGINE = "llama.cpp"
"""Of a build: what computes. The CPU's features change the last digits only."""


@dataclass(frozen=True)
class Judged:
    """The scores of one file, and the row of the base that it was held against."""

    row: QualityRow
    base: QualityRow
    corpus_name: str

    @property
    def scores(self) -> Scores | None:
        """Over all domains."""
        return scores(self.row, self.base)

    @property
    def verdict(self) -> str | None:
        """In words."""
        return verdict(self.row, self.base)


def judged(
    digests: Sequence[str],
    base: str,
    corpus: Corpus,
    spec: QualitySpec,
    build: Mapping[str, str],
    registry: Registry,
) -> dict[str, Judged]:
    """What was read of files on just this corpus, with this engine, beside the file of the digest `base`: by digest."""
    wanted = _key(corpus.sha256, spec, base, "exact", build)
    return _groups(set(digests), registry).get(wanted, {})


def judged_alike(artifacts: Sequence[Artifact], registry: Registry) -> dict[str, Judged]:
    """The same on any corpus and with any settings, but the same for all: those under which most of them were read, the
    newest of several.
    """
    return max(_groups({a.digest for a in artifacts}, registry).values(), key=len, default={})


def _groups(digests: set[str], registry: Registry) -> dict[tuple[Any, ...], dict[str, Judged]]:
    """By conditions, the newest first, and in each by digest."""
    found: dict[tuple[Any, ...], dict[str, Judged]] = {}
    for run in _runs(digests, registry):
        base = run.base_row
        if base is None or base.failure or run.base is None:
            continue
        key = _key(run.corpus, run.spec, run.base, run.base_precision, run.build)
        for row in run.rows:
            if row.digest in digests and row.failure is None and (row.chunks or row.defect):
                found.setdefault(key, {}).setdefault(row.digest, Judged(row, base, run.corpus_name))
    return found


def _runs(digests: set[str], registry: Registry) -> Iterator[QualityRun]:
    """Those that have any of the files: the scores of the others need not be unpacked."""
    for document in runs.load(registry.home, KIND):
        if digests & {row["digest"] for row in document["rows"]}:
            yield QualityRun.from_document(document)


def _key(corpus: str, spec: QualitySpec, base: str, precision: str, build: Mapping[str, str]) -> tuple[Any, ...]:
    return (corpus, base, precision, build.get(_ENGINE), *sorted(spec.conditions().items()))
