from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from slmkit.backends.llamacpp import engine
from slmkit.core.bench import BenchRun, BenchSpec
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineMissingError, EngineTimeoutError, UsageError
from slmkit.host import memory
from slmkit.ops.adopt import adopt, describe
from slmkit.ops.bench import Effort, bench, block
from slmkit.ops.compare import compare, is_measured
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry import runs
from slmkit.registry.store import Registry

SPEC = BenchSpec(n_prompt=16, n_gen=4, repetitions=2, n_threads=1)


def test_numbers_raw_samples_host_and_build_are_kept(tiny: str, session: Session) -> None:
    run = verbs.bench([ModelRef.parse(tiny)], [SPEC], session)
    assert [row.ref for row in run.rows] == [f"{tiny}:F16", f"{tiny}:Q4_0"]
    for row in run.rows:
        assert row.failure is None
        assert len(row.pp_ns) == len(row.tg_ns) == len(row.ttft_ns)
        assert len(row.pp_ns) in (2, 4)  # again when something disturbed
        assert len(row.samples("itl")) == 4 * len(row.ttft_ns)
        assert row.memory is not None
        assert row.memory.peak_rss is not None
        assert row.memory.baseline_rss is not None
        assert row.memory.peak_rss > row.memory.baseline_rss
        assert row.memory.file_backed is not None
        assert row.memory.anonymous is not None
    (document,) = runs.load(session.registry.home, "bench")
    assert BenchRun.from_document(document) == run
    assert document["host"]["cpu"]
    assert document["build"]["features"]


def test_the_cache_has_the_cells_that_are_expected(tiny: str, session: Session) -> None:
    """Of a token of one sequence it takes the same under every spec."""
    grown = (
        SPEC,
        replace(SPEC, n_prompt=250),
        replace(SPEC, depth=300),
        replace(SPEC, n_prompt=0, n_gen=40),
        replace(SPEC, n_prompt=0, n_gen=300, n_parallel=3),
    )
    specs = [replace(spec, repetitions=1) for spec in grown]
    run = verbs.bench([ModelRef.parse(f"{tiny}:Q4_0")], specs, session)
    assert [spec.n_cells for spec in specs] == [256, 256, 512, 256, 512]
    sizes = set()
    for found in run.rows:
        assert found.memory is not None
        assert found.memory.kv
        assert found.spec.n_cells
        sizes.add(found.memory.kv / (found.spec.n_cells * found.spec.n_parallel))
    assert len(sizes) == 1


def test_a_child_that_is_killed_becomes_a_row_and_the_others_still_run(tiny: str, session: Session) -> None:
    """The first model's child is killed by a signal from outside, in the middle of its work."""
    killed: list[int] = []

    class Killer:
        def advance(self, amount: int = 1) -> None:
            if not killed:
                (child,) = (c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE)
                os.kill(child.pid, signal.SIGSEGV)
                killed.append(child.pid)

        def set_total(self, total: int) -> None:
            pass

        def describe(self, text: str) -> None:
            pass

    class Progress:
        def task(self, *_: object, **__: object) -> object:
            from contextlib import nullcontext

            return nullcontext(Killer())

        def say(self, text: str) -> None:
            pass

        def warn(self, text: str) -> None:
            pass

    artifacts = verbs.artifacts([ModelRef.parse(tiny)], session)
    run = bench(artifacts, [SPEC], session.registry, Progress())  # type: ignore[arg-type]
    first, second = run.rows
    assert first.failure is not None
    assert first.failure.code == "engine.crashed"
    assert "SIGSEGV" in first.failure.message
    assert second.failure is None
    assert second.tg_ns


def test_a_damaged_file_and_a_hang_are_rows_with_their_reasons(
    tiny: str, session: Session, tmp_path: Path, f16: Path
) -> None:
    copy = tmp_path / "broken-F16.gguf"
    copy.write_bytes(f16.read_bytes())
    broken = describe(copy, SILENT)
    copy.write_bytes(f16.read_bytes()[:-5000])
    whole = session.registry.find(tiny, "Q4_0")
    assert whole is not None
    run = bench([broken, whole], [SPEC], session.registry, SILENT)
    assert [row.failure and row.failure.code for row in run.rows] == ["engine", None]
    slow = BenchSpec(n_prompt=0, n_gen=10**7, repetitions=1, n_threads=1, timeout_s=3)
    (row,) = bench([whole], [slow], session.registry, SILENT).rows
    assert row.failure is not None
    assert row.failure.code == "engine.timeout"


def test_a_context_that_does_not_fit_into_memory_is_a_row(tiny: str, session: Session) -> None:
    """A KV cache of 20 GB, where the process and its children may have 4."""
    code = (
        "import resource\n"
        "from slmkit.core.bench import BenchSpec\n"
        "from slmkit.core.progress import SILENT\n"
        "from slmkit.ops.bench import bench\n"
        "from slmkit.registry.store import Registry\n"
        "registry = Registry()\n"
        f"artifact = registry.find({tiny!r}, 'Q4_0')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "spec = BenchSpec(n_prompt=0, n_gen=1, depth=20_000_000, repetitions=1, n_threads=1, timeout_s=60)\n"
        "(row,) = bench([artifact], [spec], registry, SILENT).rows\n"
        "print(row.failure.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "engine.memory\n", done.stderr


def test_nothing_to_bench_and_no_engine(registry: Registry, f16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nothing to bench"):
        bench([], [SPEC], registry, SILENT)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineMissingError):
        bench([describe(f16, SILENT)], [SPEC], registry, SILENT)


def test_compare_measures_nothing_and_says_what_is_missing(tiny: str, session: Session) -> None:
    registry = session.registry
    artifacts = verbs.artifacts([ModelRef.parse(tiny)], session)
    before = compare(artifacts, registry)
    assert [row.variant for row in before.rows] == ["F16", "Q4_0"]
    assert before.rows[0].reduction == 0
    assert before.rows[1].reduction == pytest.approx(1 - artifacts[1].size_bytes / artifacts[0].size_bytes)
    assert before.spec is None
    assert before.missing == (f"slmkit bench {tiny}:F16 {tiny}:Q4_0",)
    bench([artifacts[0]], [SPEC], registry, SILENT)
    build = engine.build()
    assert is_measured(artifacts[0], SPEC, build, registry)
    assert not is_measured(artifacts[1], SPEC, build, registry)
    assert not is_measured(artifacts[0], SPEC, {**build, "features": "others"}, registry)
    after = compare(artifacts, registry)
    assert [row.bench is None for row in after.rows] == [False, True]
    assert after.missing == (f"slmkit bench {tiny}:Q4_0 -p 16 -n 4 -r 2 -t 1",)


@pytest.mark.parametrize("change", ["host", "build", "spec"])
def test_measurements_under_other_conditions_are_left_out(tiny: str, session: Session, change: str) -> None:
    """Other settings, another machine, another build: none stands beside the others, and the fuller table wins."""
    registry = session.registry
    artifacts = verbs.artifacts([ModelRef.parse(tiny)], session)
    bench(artifacts, [SPEC], registry, SILENT)
    other = json.loads(next((registry.home / "runs").glob("*.json")).read_text())
    if change == "host":
        other["host"]["cpu"] = "another"
    elif change == "build":
        other["build"]["engine"] = "another"
    for row in other["rows"]:
        for each in row["blocks"]:
            each["load_ns"] = 1
        if change == "spec":
            row["spec"]["n_threads"] = 2
    runs.save(registry.home, "bench", {**other, "rows": other["rows"][:1]})
    comparison = compare(artifacts, registry)
    assert [row.bench is not None and row.bench.load_ns != 1 for row in comparison.rows] == [True, True]
    assert comparison.notes == ("1 measurement was made under other conditions and is left out",)
    runs.save(registry.home, "bench", other)
    newest = compare(artifacts, registry)
    assert [row.bench is not None and row.bench.load_ns == 1 for row in newest.rows] == [True, True]


def test_without_f16_there_is_no_reduction_but_a_command(tiny: str, checkpoint: Path, session: Session) -> None:
    registry = session.registry
    registry.remove(registry.plan_removal([a for a in registry.artifacts(tiny) if a.variant == "F16"]))
    comparison = compare(verbs.artifacts([ModelRef.parse(tiny)], session), registry)
    assert comparison.rows[0].reduction is None
    assert f"slmkit convert {tiny}" not in comparison.missing  # nobody has registered what it was made from
    adopt(checkpoint, registry, SILENT)
    comparison = compare(verbs.artifacts([ModelRef.parse(tiny)], session), registry)
    assert f"slmkit convert {tiny}" in comparison.missing


def test_a_file_that_is_not_registered_goes_by_its_path(f16: Path, session: Session) -> None:
    """Every command that is printed can be typed: nobody has registered `local/tiny-llama`."""
    ref = ModelRef("path", str(f16))
    (row,) = verbs.bench([ref], [SPEC], session).rows
    assert row.ref == str(f16)
    comparison = compare(verbs.artifacts([ref], session), session.registry)
    assert comparison.rows[0].bench == row
    adopt(f16, session.registry, SILENT)
    (known,) = verbs.artifacts([ref], session)
    assert known.ref == "local/tiny-llama:F16"


@pytest.mark.parametrize("stage", [0, 1])
def test_a_child_that_dies_while_its_memory_is_read_is_a_row_too(
    tiny: str, session: Session, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    """The first model's child is killed in a pause, before the reader looks at it."""
    seen: list[int] = []
    read = memory.of_process

    def kill_and_read(pid: int) -> object:
        seen.append(pid)
        if len(seen) == stage + 1:
            os.kill(pid, signal.SIGSEGV)
            psutil.Process(pid).wait(timeout=30) if stage else None
        return read(pid)

    monkeypatch.setattr(memory, "of_process", kill_and_read)
    first, second = verbs.bench([ModelRef.parse(tiny)], [SPEC], session).rows
    assert first.failure is not None
    assert first.failure.code == "engine.crashed"
    assert second.failure is None


def test_what_is_measured_when_it_is_interrupted_is_kept_and_not_measured_again(
    tiny: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Path] = []
    measure = block.measure

    def interrupted(path: Path, *arguments: Any) -> block.Measured:
        if len(measured) == 3:
            raise KeyboardInterrupt
        return counted(path, *arguments)

    def counted(path: Path, *arguments: Any) -> block.Measured:
        found = measure(path, *arguments)
        measured.append(path)
        return found

    spec = replace(SPEC, repetitions=6)
    quick = Effort(precision=10.0)  # two rounds of two rows: four children, and more where something disturbed
    monkeypatch.setattr("slmkit.ops.bench.run.measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verbs.bench([ModelRef.parse(tiny)], [spec], session, quick)
    assert not list(runs.load(session.registry.home, "bench"))
    monkeypatch.setattr("slmkit.ops.bench.run.measure", counted)
    run = verbs.bench([ModelRef.parse(tiny)], [spec], session, quick, resume=True)
    assert [len(row.blocks) >= 2 for row in run.rows] == [True, True]
    assert sum(len(row.blocks) for row in run.rows) == len(measured)
    with pytest.raises(UsageError, match="nothing to resume"):
        verbs.bench([ModelRef.parse(tiny)], [spec], session, quick, resume=True)


def test_when_the_time_for_all_is_over_what_is_measured_is_kept_and_no_row_has_failed(
    tiny: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = verbs.artifacts([ModelRef.parse(tiny)], session)
    quick = Effort(precision=10.0, max_time_s=0)
    registry = session.registry
    given: list[float] = []
    measure = block.measure

    def second_hangs(path: Path, spec: BenchSpec, *arguments: Any) -> block.Measured:
        given.append(spec.timeout_s)
        if len(given) == 2:
            raise EngineTimeoutError("the engine took more than 60 s and was stopped")
        return measure(path, spec, *arguments)

    with pytest.raises(EngineTimeoutError, match="nothing is measured yet"):
        bench(files, [SPEC], registry, SILENT, quick, timeout_s=0)
    monkeypatch.setattr("slmkit.ops.bench.run.measure", second_hangs)
    with pytest.raises(EngineTimeoutError, match="what is measured is kept"):
        bench(files, [SPEC], registry, SILENT, quick, timeout_s=60)
    assert 60 >= given[0] > given[1] > 0
    assert not list(runs.load(registry.home, "bench"))
    run = bench(files, [SPEC], registry, SILENT, quick, resume=True)
    assert set(given[2:]) == {SPEC.timeout_s}
    assert [row.failure for row in run.rows] == [None, None]


def test_a_child_that_takes_too_much_memory_is_a_row(tiny: str, session: Session) -> None:
    spec = replace(SPEC, n_gen=10**6, repetitions=1, timeout_s=60, max_rss_bytes=50 << 20)
    for row in verbs.bench([ModelRef.parse(tiny)], [spec], session).rows:
        assert row.failure is not None
        assert row.failure.code == "engine.memory"
        assert row.failure.message == "it took more than 50.0 MiB and was stopped"
