"""What has been read already, under just these conditions: for those who would not read it again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from slmkit.core.compare import Judged
from slmkit.core.quality import Corpus, QualitySpec
from slmkit.registry import runs
from slmkit.registry.store import Registry

_ENGINE = "llama.cpp"
"""Of a build: what computes. The CPU's features change the last digits only."""


def judged(
    digests: Collection[str],
    base: str,
    corpus: Corpus,
    spec: QualitySpec,
    build: Mapping[str, str],
    registry: Registry,
) -> dict[str, Judged]:
    """What was read of files on just this corpus, with this engine, beside the file of the digest `base`: the newest by
    digest. What failed was not read.
    """
    wanted = _key(corpus.sha256, spec, base, "exact", build)
    found: dict[str, Judged] = {}
    for stored in runs.quality_runs(registry.home)[0]:
        run = stored.run
        against = run.base_row
        if against is None or run.base is None:
            continue
        if _key(run.corpus, run.spec, run.base, run.base_precision, run.build) != wanted:
            continue
        for row in run.rows:
            if row.was_read and row.digest in digests and row.digest not in found:
                found[row.digest] = Judged.of(row, against)
    return found


def _key(corpus: str, spec: QualitySpec, base: str, precision: str, build: Mapping[str, str]) -> tuple[Any, ...]:
    return (corpus, base, precision, build.get(_ENGINE), *sorted(spec.conditions().items()))
