"""`gc`, `get`, `lineage` and `verify --rederive`, as they are typed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from slmkit.registry import dropped, paths
from slmkit.registry.atomic import PARTIAL
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, Start, wait_until
from tests.conftest import Run
from tests.hubserver import HubServer
from tests.registry.invariants import check

DEAD = 2**22 + 1
"""A process id that no process can have (`PID_MAX_LIMIT` of Linux, and more than macOS has)."""


@pytest.fixture
def untidy(furnished: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """With one of each kind of garbage, and beside each something that must stay."""
    home, folder = furnished.home, paths.model_dir(furnished.home, MODEL)
    (folder / f"{PARTIAL}{DEAD}-x.gguf").write_bytes(b"h" * 1000)
    (folder / f"{PARTIAL}{DEAD}-x").mkdir()
    (folder / f"{PARTIAL}{DEAD}-x" / "shard.gguf").write_bytes(b"h" * 500)
    (home / f"{PARTIAL}{DEAD}-rederive").mkdir()
    (home / "runs" / f"{PARTIAL}{DEAD}-run.json").write_text("{")
    (home / "runs" / f"{PARTIAL}{os.getpid()}-run.json").write_text("{")  # its writer lives
    f16 = furnished.find(MODEL, "F16")
    assert f16 is not None
    tables = home / "distortion"
    tables.mkdir()
    (tables / f"{PARTIAL}{DEAD}-x.json").write_text("{")
    (tables / "here.json").write_text(json.dumps({"source": "another:F16", "digest": f16.digest}))
    (tables / "older.json").write_text(json.dumps({"source": f16.ref}))
    (tables / "gone.json").write_text(json.dumps({"source": f16.ref, "digest": "sha256:0"}))
    (tables / "damaged.json").write_text("{")
    (folder / "tiny-llama-Q5_1.gguf").write_bytes(b"o" * 2000)
    (folder / "notes.txt").write_text("the user's own")
    (folder / "mine.gguf").write_text("the user's own")
    other = paths.model_dir(home, "local/other")
    other.mkdir()
    (home / "locks" / "local%2Fgone.lock").touch()
    q8 = furnished.find(MODEL, "Q8_0")
    assert q8 is not None
    q8.path.unlink()
    cache = tmp_path / "hf" / "hub"
    blobs = cache / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{64 * 'a'}.slmkit-part").write_bytes(b"d" * 300)
    (blobs / (64 * "b")).write_bytes(b"whole")
    return furnished


def paths_of(registry: Registry) -> set[Path]:
    return {path for path in registry.home.rglob("*") if ".lock" not in path.name}


def test_gc_frees_what_nothing_refers_to_and_nothing_else(untidy: Registry, slmkit: Run, tmp_path: Path) -> None:
    before = paths_of(untidy)
    for arguments in (["gc", "--dry-run"], ["gc"], ["gc", "--json"]):  # nobody sits at a terminal
        looked = slmkit(*arguments)
        assert looked.returncode == 0, looked.stderr
    assert paths_of(untidy) == before
    values = json.loads(looked.stdout)
    assert (values["dry_run"], values["freed_bytes"]) == (True, 0)
    kinds = {kind: sum(i["kind"] == kind for i in values["items"]) for kind in {i["kind"] for i in values["items"]}}
    assert kinds == {"partial": 5, "orphan": 1, "broken": 1, "lock": 1, "table": 2, "download": 1}

    done = slmkit("gc", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("freed 3.")
    assert "files without a manifest" in done.stdout
    assert [a.variant for a in untidy.artifacts()] == ["F16", "Q4_0"]
    assert [a.variant for a in dropped.all_of(untidy.home)] == ["Q8_0"], "its recipe costs nothing"
    folder = paths.model_dir(untidy.home, MODEL)
    for name in ("notes.txt", "mine.gguf"):
        (folder / name).unlink()
    check(untidy.home)
    left = [p.name for p in (tmp_path / "hf" / "hub").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == [64 * "b"]
    assert [p.name for p in untidy.home.rglob(f"{PARTIAL}*")] == [f"{PARTIAL}{os.getpid()}-run.json"]
    assert len(list((untidy.home / "runs").glob("[!.]*.json"))) == 1
    assert sorted(path.name for path in (untidy.home / "distortion").iterdir()) == ["here.json", "older.json"]
    assert not (untidy.home / "locks" / "local%2Fgone.lock").exists()
    assert slmkit("gc").stdout == "nothing to free\n"


def test_what_was_measured_of_a_model_goes_with_it(furnished: Registry, slmkit: Run) -> None:
    assert slmkit("quantize", MODEL, "--target-bpw", "5").returncode == 0
    (table,) = (furnished.home / "distortion").iterdir()
    assert slmkit("gc", "--rebuildable", f"{MODEL}:F16", "--yes").returncode == 0
    assert slmkit("gc", "--yes").returncode == 0
    assert table.exists(), "the file is gone, but its recipe is here"
    assert slmkit("rm", MODEL).returncode == 0
    assert slmkit("gc", "--yes").returncode == 0
    assert not table.exists()


def test_what_another_process_works_on_stays(untidy: Registry, slmkit: Run) -> None:
    before = paths_of(untidy)
    with untidy.locked(MODEL):  # the lock alone clears half-written files
        done = slmkit("gc", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: left alone, another slmkit is working on it" in done.stderr
    folder = paths.model_dir(untidy.home, MODEL)
    assert {p for p in before if p.parent == folder and not p.name.startswith(PARTIAL)} == set(folder.iterdir())


def test_a_damaged_manifest_protects_every_file(untidy: Registry, slmkit: Run) -> None:
    paths.manifest_path(untidy.home, MODEL, "Q4_0").write_text("{")
    done = slmkit("gc", "--yes")
    assert done.returncode == 0, done.stderr
    assert "only half-written files are looked for" in done.stderr
    folder = paths.model_dir(untidy.home, MODEL)
    assert {"tiny-llama-Q4_0.gguf", "tiny-llama-Q5_1.gguf"} <= {p.name for p in folder.iterdir()}
    assert len(list((untidy.home / "distortion").iterdir())) == 4


def test_gc_on_a_terminal_asks(untidy: Registry, start: Start) -> None:
    import pty

    for answer, n_left in ((b"n\n", 1), (b"y\n", 0)):
        master, slave = pty.openpty()
        process = start("gc", stdin=slave)
        os.write(master, answer)
        out, err = process.communicate(timeout=60)
        os.close(master)
        os.close(slave)
        assert process.returncode == 0, err
        assert "delete these?" in out + err
        assert len(list(untidy.home.rglob("tiny-llama-Q5_1.gguf"))) == n_left


def test_a_model_is_named_only_to_drop_it(furnished: Registry, slmkit: Run) -> None:
    done = slmkit("gc", MODEL)
    assert done.returncode == 2
    assert f"`slmkit rm {MODEL}`" in done.stderr


def test_an_empty_folder_is_something_to_free(furnished: Registry, slmkit: Run) -> None:
    folder = furnished.home / f"{PARTIAL}{DEAD}-rederive"
    folder.mkdir()
    looked = slmkit("gc", "--dry-run")
    assert looked.stdout.splitlines()[-1] == "would free 0 B"
    assert slmkit("gc", "--yes").returncode == 0
    assert not folder.exists()


def test_what_must_stay_says_why_also_when_it_is_all(furnished: Registry, slmkit: Run) -> None:
    """The checkpoint was converted from its path: it is not registered."""
    done = slmkit("gc", "--rebuildable", f"{MODEL}:F16", "--yes")
    assert done.returncode == 0, done.stderr
    assert "stays: what it was made from is not registered" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing to free"


def test_from_the_hub_and_back(slmkit: Run, checkpoint: Path, registry: Registry, tmp_path: Path) -> None:
    """Pulled, converted, quantized; then everything is dropped, the cache deleted, and the quant asked for."""
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with HubServer() as hub:
        hub.add("org/tiny", files)
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}

        def ok(*arguments: str) -> str:
            done = slmkit(*arguments, env=online)
            assert done.returncode == 0, done.stderr
            return done.stdout

        ok("quantize", "org/tiny", "-t", "Q4_0")
        before = {a.ref: a.digest for a in registry.artifacts()}
        drawn = ok("lineage", "org/tiny:Q4_0").splitlines()
        commit = hub.repos["org/tiny"].commit
        assert drawn[0] == f"org/tiny at {commit[:12]}  on the Hub"
        assert [line.split()[1] for line in drawn[1:]] == ["org/tiny", "org/tiny:F16", "org/tiny:Q4_0"]
        assert all(line.endswith("  here") for line in drawn[1:])

        assert "org/tiny:Q4_0" not in ok("gc", "--rebuildable", "--dry-run")  # without names: the floats
        assert ok("gc", "--rebuildable", "org/tiny", "--yes").splitlines()[-1].startswith("freed 3.")
        assert "Q4_0" not in ok("list")
        assert ok("list", "--all").count("dropped") == 2
        shutil.rmtree(tmp_path / "hf")
        states = {n["ref"]: n["state"] for n in json.loads(ok("lineage", "org/tiny", "--json"))["nodes"]}
        assert states == {"org/tiny": "gone", "org/tiny:F16": "dropped", "org/tiny:Q4_0": "dropped"}

        refused = slmkit("get", "org/tiny:Q4_0", "--no-pull", env=online)
        assert refused.returncode == 1
        assert "must be pulled" in refused.stderr
        said = ok("get", "org/tiny:Q4_0").splitlines()
        assert [line.split()[0] for line in said] == ["org/tiny", "org/tiny:F16", "org/tiny:Q4_0"]
        assert {a.ref: a.digest for a in registry.artifacts()} == before
        assert "org/tiny:Q4_0: made again, the same bytes" in ok("verify", "org/tiny", "--rederive")
        check(registry.home, settled=True)


def test_lineage_draws_each_variant_once_also_with_the_same_bytes(furnished: Registry, slmkit: Run) -> None:
    assert slmkit("quantize", MODEL, "-t", "Q4_0", "--name", "again").returncode == 0
    variants = ["Q4_0", "Q4_0-again", "Q8_0"]
    for ref in (MODEL, f"{MODEL}:F16"):
        drawn = slmkit("lineage", ref).stdout.splitlines()
        assert sorted(line.split()[1] for line in drawn if "quantize" in line) == [f"{MODEL}:{v}" for v in variants]
    for variant in variants[:2]:
        (line,) = [line for line in slmkit("lineage", f"{MODEL}:{variant}").stdout.splitlines() if "quantize" in line]
        assert line.split()[1] == f"{MODEL}:{variant}"


def test_rederive_says_no_with_3(furnished: Registry, slmkit: Run) -> None:
    """The checkpoint was converted from its path: it is not registered."""
    done = slmkit("verify", "--rederive", "--json")
    assert done.returncode == 3
    answers = {row["ref"]: row["answer"] for row in json.loads(done.stdout)["rederived"]}
    assert answers == {f"{MODEL}:F16": "cannot", f"{MODEL}:Q4_0": "same", f"{MODEL}:Q8_0": "same"}
    assert '"error": "verdict"' in done.stderr
    assert slmkit("verify", f"{MODEL}:Q4_0", "--rederive", "--threads", "3").returncode == 0
    assert slmkit("verify", "--threads", "3").returncode == 2


def test_a_rederive_that_is_killed_leaves_what_gc_finds(start: Start, slmkit: Run, furnished: Registry) -> None:
    process = start("verify", f"{MODEL}:Q4_0", "--rederive")
    wait_until(process, lambda: bool(list(furnished.home.glob(f"{PARTIAL}*"))))
    process.kill()
    process.communicate()
    check(furnished.home)
    assert slmkit("gc", "--yes").returncode == 0
    check(furnished.home, settled=True)
