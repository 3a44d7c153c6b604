"""The least memory of the tiny model, under limits that hold here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.errors import CannotMeasureError, EngineError
from slmkit.host import limits
from slmkit.ops.bench import block, least_memory
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry import runs

SPEC = BenchSpec(n_prompt=0, n_gen=8, repetitions=2, n_threads=1)
MIB = 1 << 20


@pytest.fixture
def slow_is_at_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs may run beside these tests."""
    monkeypatch.setattr(least_memory, "AT_SPEED", 0.05)


@pytest.fixture
def nothing_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "_WAYS", {})
    limits.means.cache_clear()
    yield
    limits.means.cache_clear()


def _run(tiny: str, session: Session) -> BenchRun:
    """As it is returned, which is as it is stored."""
    run = verbs.bench([ModelRef.parse(f"{tiny}:Q4_0")], [SPEC], session, min_ram=True)
    (document,) = runs.load(session.registry.home, "bench")
    assert BenchRun.from_document(document) == run
    return run


@pytest.mark.usefixtures("slow_is_at_speed")
def test_what_is_found_is_enough_and_much_less_is_not(way: limits.Kind, tiny: str, session: Session) -> None:
    (row,) = _run(tiny, session).rows
    assert row.min_ram_bytes is not None, row.warnings
    assert f"({way}; " in row.warnings[-1]
    (artifact,) = verbs.artifacts([ModelRef.parse(f"{tiny}:Q4_0")], session)
    spec = row.spec if way != "rlimit" else BenchSpec(n_prompt=0, n_gen=8, n_threads=1, mmap=False)
    assert _lives(artifact, spec, row.min_ram_bytes + 8 * MIB)
    assert not _lives(artifact, spec, row.min_ram_bytes // 4)


def _lives(artifact: Artifact, spec: BenchSpec, size_bytes: int) -> bool:
    with limits.limited(size_bytes, [artifact.path]) as limit:
        assert limit is not None
        try:
            block.measure(artifact.path, spec, "Once upon a time", 1, lambda *_: None, within=limit.command)
        except EngineError:
            return False
    return True


def test_where_nothing_limits_memory_the_run_is_kept_and_says_so(
    nothing_limits: None, tiny: str, session: Session
) -> None:
    (row,) = _run(tiny, session).rows
    assert row.tg_ns
    assert row.min_ram_bytes is None
    assert "the least memory cannot be found: this system lets" in row.warnings[-1]


@pytest.mark.parametrize(
    "error",
    [EngineError("failed to load"), CannotMeasureError("under no limit"), PermissionError(13, "no right to it")],
)
def test_what_goes_wrong_in_the_search_takes_no_measurement_along(
    error: Exception, tiny: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(least_memory, "least_memory", fail)
    (row,) = _run(tiny, session).rows
    assert row.tg_ns
    reason = error.strerror if isinstance(error, OSError) else str(error)
    assert row.warnings[-1] == f"{tiny}:Q4_0: the least memory cannot be found: {reason}"


def test_a_search_that_is_interrupted_leaves_the_run(
    tiny: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(least_memory, "least_memory", interrupt)
    with pytest.raises(KeyboardInterrupt):
        verbs.bench([ModelRef.parse(f"{tiny}:Q4_0")], [SPEC], session, min_ram=True)
    (document,) = runs.load(session.registry.home, "bench")
    assert BenchRun.from_document(document).rows[0].tg_ns


def test_a_file_that_is_gone_before_the_search_is_a_warning(tiny: str, session: Session) -> None:
    """The engine's own error, not one that was made up."""
    (artifact,) = verbs.artifacts([ModelRef.parse(f"{tiny}:Q4_0")], session)
    artifact.path.unlink()
    row = BenchRow(artifact.ref, artifact.digest, artifact.size_bytes, SPEC)
    found = least_memory.with_least_memory(artifact, row, SILENT)
    assert found.min_ram_bytes is None
    assert "the least memory cannot be found: " in found.warnings[-1]
