"""What was read already is found again, and nothing else is taken for it."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import pytest

from slmkit.core.bench import Failure
from slmkit.core.quality import Chunk, Corpus, QualityRow, QualityRun, QualitySpec, Text
from slmkit.ops.quality.known import judged
from slmkit.registry import runs
from slmkit.registry.store import Registry

CORPUS = Corpus("words", (Text("words", "some words"),))
SPEC = QualitySpec(n_chunks=2)
BUILD = {"engine": "llama-cpp-python 0.3.36", "llama.cpp": "1 0c1e57098", "features": "AVX2"}


def row(digest: str, kld: float = 0.1, **changes: Any) -> QualityRow:
    is_base = digest == "sha256:base"
    scores = array("f") if is_base else array("f", [kld] * 4)
    chunk = Chunk("words", 0, array("f", [2.0, 1.0, 3.0, 2.0]), scores, array("b", [] if is_base else [1, 1, 0, 1]))
    values: dict[str, Any] = {"chunks": (chunk,), "is_base": is_base, **changes}
    return QualityRow(f"org/m:{digest[7:]}", digest, 10, **values)


def keep(registry: Registry, *rows: QualityRow, **changes: Any) -> None:
    values: dict[str, Any] = {
        "created": "2026-11-28T10:00:00+00:00",
        "host": {},
        "build": BUILD,
        "corpus_name": CORPUS.name,
        "corpus": CORPUS.sha256,
        "spec": SPEC,
        "base": "sha256:base",
    }
    run = QualityRun(**{**values, **changes}, rows=(row("sha256:base"), *rows))
    runs.save(registry.home, "quality", run.document())


def find(registry: Registry, *digests: str) -> dict[str, float]:
    found = judged(digests, "sha256:base", CORPUS, SPEC, BUILD, registry)
    return {
        digest: round(each.scores.kld.value, 3) for digest, each in found.items() if each.scores and each.scores.kld
    }


def test_the_newest_of_each_file(registry: Registry) -> None:
    keep(registry, row("sha256:a", 0.1), row("sha256:b", 0.2))
    keep(registry, row("sha256:a", 0.3))
    assert find(registry, "sha256:a", "sha256:b", "sha256:c") == {"sha256:a": 0.3, "sha256:b": 0.2}
    found = judged(["sha256:a"], "sha256:base", CORPUS, SPEC, BUILD, registry)["sha256:a"]
    assert (found.verdict, found.base, found.is_base) == ("noticeable", "org/m:base", False)


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus": "another"},
        {"spec": replace(SPEC, n_chunks=3)},
        {"spec": replace(SPEC, n_ctx=256)},
        {"base_precision": "coarse"},
        {"build": {**BUILD, "llama.cpp": "another"}},
        {"base": "sha256:other"},
    ],
)
def test_under_other_conditions_it_was_not_read(registry: Registry, changes: dict[str, Any]) -> None:
    keep(registry, row("sha256:a"), **changes)
    assert find(registry, "sha256:a") == {}


def test_effort_and_the_cpu_make_no_difference(registry: Registry) -> None:
    keep(registry, row("sha256:a"), spec=replace(SPEC, n_threads=7), build={**BUILD, "features": "NEON"})
    assert find(registry, "sha256:a") == {"sha256:a": 0.1}


def test_what_failed_was_not_read_and_what_is_broken_was(registry: Registry) -> None:
    broken = row("sha256:b", chunks=(), defect="its vocabulary is another")
    keep(registry, row("sha256:a", chunks=(), failure=Failure("engine", "no")), broken)
    found = judged(["sha256:a", "sha256:b"], "sha256:base", CORPUS, SPEC, BUILD, registry)
    assert list(found) == ["sha256:b"]
    keep(registry, row("sha256:c", chunks=()))  # it was asked something else only
    assert judged(["sha256:c"], "sha256:base", CORPUS, SPEC, BUILD, registry) == {}
    assert found["sha256:b"].verdict == "broken"
    assert found["sha256:b"].scores is None
