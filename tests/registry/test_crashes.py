"""The registry's operations, killed before each of the calls by which they change the disk."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import SILENT
from slmkit.registry import atomic, garbage, imatrices, paths
from slmkit.registry.store import Registry
from tests.registry.invariants import check

MODEL = "org/name"
CHANGES = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "shutil.rmtree",
}
"""What Python tells an audit hook of before it does it (https://docs.python.org/3/library/audit_events.html)."""


def changes(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":  # path, mode, flags
        return isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES


def killed_at(step: int, work: Callable[[Registry], object], registry: Registry) -> bool:
    """Do `work` in a process that kills itself before its `step`th change of the registry; whether it came that far."""
    pid = os.fork()
    if pid == 0:
        left = step

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if changes(event, arguments) and any(str(registry.home) in str(a) for a in arguments):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        try:
            sys.addaudithook(hook)
            work(registry)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def at_every_step(work: Callable[[Registry], object], home: Path) -> int:
    """Kill `work` everywhere and check what is left; then nobody is killed, and all is in order. Gives the number."""
    before = home.with_name("before")
    home.rename(before)
    step = 0
    while True:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(before, home)
        registry = Registry(home)
        if not killed_at(step, work, registry):
            check(home, settled=True)
            return step
        check(home)
        garbage.free(registry, garbage.find(registry, SILENT))
        check(home, settled=True)
        work(registry)
        check(home, settled=True)
        step += 1


def staged(registry: Registry, variant: str, contents: dict[str, bytes]) -> tuple[Artifact, Callable[[Path], None]]:
    """An artifact of these files, and what writes them to a folder."""
    folder = paths.model_dir(registry.home, MODEL)
    files = []
    scratch = registry.home.with_name("scratch")
    scratch.mkdir(exist_ok=True)
    for name, content in contents.items():
        (scratch / name).write_bytes(content)
        files.append(File(name, len(content), atomic.sha256(scratch / name)))

    def write(to: Path) -> None:
        for name, content in contents.items():
            (to / name).write_bytes(content)

    provenance = Provenance("quantize", parents=("sha256:00",), parameters={"type": variant})
    return Artifact(MODEL, variant, folder, tuple(files), True, provenance, "2026-01-01T00:00:00+00:00"), write


def publish(registry: Registry, variant: str, contents: dict[str, bytes]) -> Artifact:
    artifact, write = staged(registry, variant, contents)
    with registry.locked(MODEL), atomic.staged(artifact.path) as folder:
        write(folder)
        registry.publish(artifact, folder)
    return artifact


def gguf(text: str) -> bytes:
    """The smallest GGUF that says something: one key, no tensor."""
    value = text.encode()
    key = struct.pack("<Q1sIQ", 1, b"k", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key


ONE = {"name-Q4_0.gguf": gguf("one")}
OTHER = {"name-Q4_0.gguf": gguf("other")}
SHARDS = {f"name-Q4_0-0000{i}-of-00002.gguf": gguf(f"shard {i}") for i in (1, 2)}


@pytest.mark.parametrize(("before", "after"), [(None, ONE), (ONE, ONE), (ONE, OTHER), (ONE, SHARDS), (SHARDS, ONE)])
def test_publishing(registry: Registry, before: dict[str, bytes] | None, after: dict[str, bytes]) -> None:
    publish(registry, "Q8_0", {"name-Q8_0.gguf": gguf("a neighbour")})
    if before:
        publish(registry, "Q4_0", before)

    def work(r: Registry) -> None:
        publish(r, "Q4_0", after)

    assert at_every_step(work, registry.home) > 5
    assert [a.variant for a in registry.artifacts()] == ["Q4_0", "Q8_0"]


def publish_imatrix(registry: Registry, content: bytes) -> None:
    here = imatrices.place(registry, MODEL, "mixed")
    with imatrices.locked(registry, MODEL, SILENT), atomic.staged(here.target) as folder:
        (folder / here.target.name).write_bytes(content)
        file = File(here.target.name, len(content), atomic.sha256(folder / here.target.name))
        provenance = Provenance("imatrix", parents=("sha256:00",))
        made = Artifact(MODEL, "mixed", here.target.parent, (file,), True, provenance, "2026-01-01T00:00:00+00:00")
        imatrices.publish(registry, made, folder)


@pytest.mark.parametrize(("before", "after"), [(None, "one"), ("one", "one"), ("one", "other")])
def test_publishing_an_importance_matrix(registry: Registry, before: str | None, after: str) -> None:
    registry.home.mkdir()
    if before:
        publish_imatrix(registry, gguf(before))
    assert at_every_step(lambda r: publish_imatrix(r, gguf(after)), registry.home) > 5
    assert [a.variant for a in imatrices.every(registry, MODEL)] == ["mixed"]


def test_dropping_and_what_was_dropped_coming_back(registry: Registry) -> None:
    def work(r: Registry) -> None:
        artifact = r.find(MODEL, "Q4_0")
        if artifact is not None:
            with r.locked(MODEL):
                r.drop(artifact)
        publish(r, "Q4_0", SHARDS)

    publish(registry, "Q4_0", SHARDS)
    assert at_every_step(work, registry.home) > 8


def test_removing(registry: Registry) -> None:
    publish(registry, "Q4_0", SHARDS)
    publish(registry, "Q8_0", {"name-Q8_0.gguf": gguf("stays")})

    def work(r: Registry) -> None:
        artifact = r.find(MODEL, "Q4_0")
        if artifact is not None:
            r.remove(r.plan_removal([artifact]))

    assert at_every_step(work, registry.home) > 4
    assert [a.variant for a in registry.artifacts()] == ["Q8_0"]


def test_collecting_garbage(registry: Registry) -> None:
    publish(registry, "Q4_0", ONE)
    folder = paths.model_dir(registry.home, MODEL)
    (folder / "name-Q5_1.gguf").write_bytes(b"an orphan")
    (folder / f"{atomic.PARTIAL}999999999-x.gguf").write_bytes(b"half")
    gone = publish(registry, "Q8_0", {"name-Q8_0.gguf": gguf("to be deleted by hand")})
    gone.path.unlink()

    def work(r: Registry) -> None:
        garbage.free(r, garbage.find(r, SILENT))

    before = registry.home.with_name("before")
    registry.home.rename(before)
    step = 0
    while True:
        shutil.rmtree(registry.home, ignore_errors=True)
        shutil.copytree(before, registry.home)
        done = not killed_at(step, work, registry)
        work(registry)
        check(registry.home, settled=True)
        assert [a.variant for a in registry.artifacts()] == ["Q4_0"]
        if done:
            break
        step += 1
    assert step > 3


def test_a_disk_that_is_full_when_the_manifest_is_written(registry: Registry) -> None:
    """The new file fits, its manifest does not: what was there before stays, whole."""
    before = publish(registry, "Q4_0", ONE)
    pid = os.fork()
    if pid == 0:
        import resource

        from slmkit.errors import DiskFullError

        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            artifact, write = staged(registry, "Q4_0", OTHER)
            large = replace(artifact, provenance=replace(artifact.provenance, notes=("x" * 200_000,)))
            try:
                with registry.locked(MODEL), atomic.staged(large.path) as folder:
                    write(folder)
                    registry.publish(large, folder)
            except DiskFullError:
                os._exit(42)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    check(registry.home, settled=True)
    assert registry.find(MODEL, "Q4_0") == before
