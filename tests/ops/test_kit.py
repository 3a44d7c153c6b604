"""A kit written on one machine and measured on another: another home."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.job import Job
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.errors import FormatError, NotInRegistryError, UsageError
from slmkit.ops import adopt, bench, kit, runs
from slmkit.ops.split import split
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry

SPECS = (BenchSpec(n_prompt=8, n_gen=4, repetitions=2, n_threads=1), BenchSpec(n_prompt=4, n_gen=0, repetitions=2))


class Listener:
    """Hears what is said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.task = SILENT.task

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def models(tiny: str, session: Session) -> list[Artifact]:
    return verbs.artifacts([ModelRef.parse(tiny)], session)


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    """The registry of another machine, empty."""
    return Registry(tmp_path / "other")


def test_there_and_back(models: list[Artifact], registry: Registry, other: Registry, tmp_path: Path) -> None:
    """The models are carried beside the job; the run comes home and stands under the names that it went with."""
    folder = tmp_path / "kit"
    job = kit.export(models, SPECS, folder, max_time_s=30)
    assert kit.load(folder) == kit.load(folder / "job.json") == job
    for artifact in models:
        shutil.copy(artifact.path, folder)
    checked = subprocess.run(["sha256sum", "-c", "models.txt"], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    found = kit.artifacts(job, folder / "job.json", other, SILENT)
    assert [(a.ref, a.digest) for a in found] == [(a.ref, a.digest) for a in models]
    run = bench.bench(found, job.specs, other, SILENT, bench.Effort(max_time_s=job.max_time_s))
    assert [row.failure for row in run.rows] == [None] * 4
    carried = tmp_path / "run.json"
    carried.write_text(json.dumps(run.document()), encoding="utf-8")
    (brought,) = runs.bring([carried], registry.home)
    assert (brought.fresh, brought.n_rows) == (True, 4)
    (again,) = runs.bring([carried], registry.home)
    assert (again.fresh, again.id) == (False, brought.id)


def test_the_other_machine_s_registry_is_looked_at_first(
    models: list[Artifact], other: Registry, tmp_path: Path
) -> None:
    """By bytes under any name; else by name, and that is said."""
    job = kit.export(models, SPECS, tmp_path / "kit", max_time_s=30)
    f16, q4 = models
    adopt.adopt(f16.path, other, SILENT, model="their/name")
    changed = tmp_path / f16.path.name
    shutil.copy(f16.path, changed)
    other.publish(replace(adopt.describe(changed, SILENT, model=q4.model), variant=q4.variant))
    heard = Listener()
    found = kit.artifacts(job, tmp_path / "kit", other, heard)
    assert [a.ref for a in found] == [f16.ref, q4.ref]
    assert found[0].path == f16.path
    (warning,) = heard.warnings
    assert "other bytes" in warning


def test_missing_and_damaged_models_are_named(models: list[Artifact], other: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    job = kit.export(models, SPECS, folder, max_time_s=30)
    with pytest.raises(NotInRegistryError, match="none of the job's models"):
        kit.artifacts(job, folder, other, SILENT)
    f16, q4 = models
    shutil.copy(f16.path, folder)
    damaged = bytearray(q4.path.read_bytes())
    damaged[-1] ^= 1
    (folder / q4.path.name).write_bytes(damaged)
    heard = Listener()
    (found,) = kit.artifacts(job, folder, other, heard)
    assert found.digest == f16.digest
    assert [w for w in heard.warnings if q4.path.name in w and "other bytes" in w]
    assert [w for w in heard.warnings if w.startswith(f"{q4.ref} is not here")]


def test_a_split_model_is_found_by_all_its_shards(f16: Path, other: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    split(f16, tmp_path / "m-F16", max_tensors=8, progress=SILENT)
    shards = sorted(tmp_path.glob("m-F16-*.gguf"))
    artifact = adopt.describe(shards[0], SILENT)
    job = kit.export([artifact], SPECS, folder, max_time_s=30)
    for path in shards[1:]:
        shutil.copy(path, folder)
    with pytest.raises(NotInRegistryError):
        kit.artifacts(job, folder, other, SILENT)
    shutil.copy(shards[0], folder)
    (found,) = kit.artifacts(job, folder, other, SILENT)
    assert found.digest == artifact.digest


def test_the_readme_says_how(models: list[Artifact], tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    kit.export(models, SPECS, folder, max_time_s=30)
    text = (folder / "README.md").read_text(encoding="utf-8")
    for expected in ("slmkit bench --job job.json", "slmkit runs import run.json", *(str(a.path) for a in models)):
        assert expected in text
    with pytest.raises(UsageError, match="is there already"):
        kit.export(models, SPECS, folder, max_time_s=30)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "bench"}, "not a bench job"),
        ({"schema": 99}, "schema is 99"),
        ({"models": []}, "nothing to measure"),
        ({"specs": [{"n_threads": 0}]}, "n_threads is 0"),
        ({"specs": [{"nonsense": 0}]}, "nonsense"),
        (
            {
                "models": [
                    {"ref": "a/b:Q4_0", "digest": "x", "files": [{"name": "../x", "size_bytes": 1, "sha256": ""}]}
                ]
            },
            "folders",
        ),
    ],
)
def test_what_is_no_job_says_what_is_wrong(
    models: list[Artifact], tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    job = kit.export(models, SPECS, tmp_path, max_time_s=30)
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**job.document(), **change}), encoding="utf-8")
    with pytest.raises(FormatError, match=reason) as caught:
        kit.load(path)
    assert str(path) in str(caught.value)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="not JSON"):
        kit.load(path)
    path.unlink()
    with pytest.raises(UsageError, match="cannot read"):
        kit.load(tmp_path)


def test_a_job_is_its_document() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        Job("2026-11-24", "0.1.0", (), SPECS, 30)
