from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import SILENT
from slmkit.errors import DiskFullError, LockedError, RegistryError
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry
from slmkit.registry.verify import verify


def made(
    registry: Registry, variant: str | None = "Q4_0", content: bytes = b"weights", model: str = "org/name"
) -> Artifact:
    """An artifact with a real file, registered."""
    path = paths.gguf_path(registry.home, model, variant or "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    file = File(path.name, len(content), atomic.sha256(path))
    provenance = Provenance(
        "quantize", "org/name", "c0ffee", ("sha256:00",), {"type": variant}, {"slmkit": "0"}, ("n",)
    )
    artifact = Artifact(
        model, variant, path.parent, (file,), True, provenance, "2026-01-01T00:00:00+00:00", {"bpw": 4.5}
    )
    registry.publish(artifact)
    return artifact


def test_what_was_published_is_found_again(registry: Registry) -> None:
    artifact = made(registry)
    assert registry.find("org/name", "Q4_0") == artifact
    assert registry.find("org/name", "q4_0") == artifact
    assert registry.find("org/name", "Q8_0") is None
    assert registry.artifacts() == [artifact]


def test_a_moved_registry_still_works(registry: Registry, tmp_path: Path) -> None:
    artifact = made(registry)
    registry.home.rename(tmp_path / "elsewhere")
    found = Registry(tmp_path / "elsewhere").find("org/name", "Q4_0")
    assert found is not None
    assert found.path == tmp_path / "elsewhere" / artifact.path.relative_to(registry.home)
    assert found.path.read_bytes() == b"weights"


def test_revisions_have_folders_of_their_own(registry: Registry) -> None:
    made(registry, model="org/name@refs/pr/1")
    made(registry)
    assert [a.model for a in registry.artifacts()] == ["org/name", "org/name@refs/pr/1"]
    for folder in (registry.home / "models").glob("*/*"):
        assert paths.model_dir(registry.home, paths.model_of(folder)) == folder


def test_removing_frees_what_the_plan_says_and_leaves_links_alone(registry: Registry, tmp_path: Path) -> None:
    kept = tmp_path / "mine" / "x.gguf"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    artifact = made(registry)
    link = Artifact(
        "org/name",
        "F16",
        kept.parent,
        (File("x.gguf", 4, "0"),),
        False,
        Provenance("adopt"),
        "2026-01-01T00:00:00+00:00",
    )
    registry.publish(link)
    removal = registry.plan_removal(registry.artifacts("org/name"))
    assert removal.size_bytes == len(b"weights")
    assert removal.links == (link,)
    assert artifact.path.exists()
    registry.remove(removal)
    assert kept.exists()
    assert registry.artifacts() == []
    assert list((registry.home / "models").rglob("*")) == []


def test_an_edited_manifest_cannot_delete_outside(registry: Registry, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x")
    artifact = made(registry)
    manifest = paths.manifest_path(registry.home, "org/name", "Q4_0")
    name = os.path.relpath(victim, artifact.root)
    manifest.write_text(manifest.read_text().replace(artifact.files[0].name, name))
    with pytest.raises(RegistryError, match="outside"):
        registry.remove(registry.plan_removal(registry.artifacts()))
    assert victim.exists()


def test_a_damaged_manifest_names_its_file(registry: Registry) -> None:
    made(registry)
    manifest = paths.manifest_path(registry.home, "org/name", "Q4_0")
    manifest.write_text(manifest.read_text()[:-30])
    with pytest.raises(RegistryError, match="name-Q4_0") as caught:
        registry.artifacts()
    assert str(manifest) in (caught.value.hint or "")


def test_verify_finds_every_kind_of_damage(registry: Registry, f16: Path) -> None:
    whole = f16.read_bytes()
    artifact = made(registry, content=whole)
    assert verify(artifact, SILENT) == []
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    garbled = whole[:8] + b"\xff" * 8 + whole[16:]
    for content, expected in ((flipped, "sha256"), (whole[:-1], "bytes instead of"), (garbled, "makes no sense")):
        artifact.path.write_bytes(content)
        (damage,) = verify(artifact, SILENT)
        assert expected in damage.what
    artifact.path.unlink()
    assert [d.what for d in verify(artifact, SILENT)] == ["is gone"]


def test_two_writers_of_one_model_and_what_a_dead_one_left(registry: Registry) -> None:
    """The second is refused while the first lives; a killed one leaves no lock, and its half file goes."""
    code = (
        "import sys, time, pathlib\n"
        "from slmkit.registry.store import Registry\n"
        "from slmkit.registry import atomic, paths\n"
        "r = Registry()\n"
        "with r.locked('org/name'), atomic.partial(paths.gguf_path(r.home, 'org/name', 'Q4_0')) as p:\n"
        "    p.write_bytes(b'half'); print('ready', flush=True); time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    with pytest.raises(LockedError, match="org/name"), registry.locked("org/name"):
        pass
    with registry.locked("org/other"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    folder = paths.model_dir(registry.home, "org/name")
    assert [p.name.startswith(atomic.PARTIAL) for p in folder.iterdir()] == [True]
    assert registry.artifacts() == []
    with registry.locked("org/name"):
        assert list(folder.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    atomic.write_text(target, "old")
    with pytest.raises(RuntimeError, match="stop"), atomic.partial(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """/dev/full refuses every byte as a full disk does."""
    with (
        pytest.raises(DiskFullError, match="no space left"),
        atomic.partial(tmp_path / "x"),
        open("/dev/full", "wb") as file,
    ):
        file.write(b"x" * 10)
        file.flush()
    assert list(tmp_path.iterdir()) == []


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "x", "y")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert time.time() - (tmp_path / "x").stat().st_mtime < 3600


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_manifest_that_is_being_written_is_not_read(registry: Registry) -> None:
    """A reader may come at any moment, and a writer may have died at any byte."""
    artifact = made(registry)
    (artifact.root / f"{atomic.PARTIAL}1-x.json").write_text('{"schema": 1, "mod')
    assert registry.artifacts() == [artifact]


def test_a_restored_checkpoint_goes_with_its_folder(registry: Registry) -> None:
    folder = paths.model_dir(registry.home, "bundled/x") / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    file = File("config.json", 2, atomic.sha256(folder / "config.json"))
    registry.publish(
        Artifact("bundled/x", None, folder, (file,), True, Provenance("export"), "2026-01-01T00:00:00+00:00")
    )
    registry.remove(registry.plan_removal(registry.artifacts()))
    assert list((registry.home / "models").iterdir()) == []


def test_a_folder_that_a_dead_writer_left_goes_with_the_next_lock(registry: Registry) -> None:
    left = paths.model_dir(registry.home, "org/name") / f"{atomic.PARTIAL}1-checkpoint"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    with registry.locked("org/name"):
        assert not left.exists()


def test_a_lock_file_that_is_deleted_while_others_wait_for_it(registry: Registry) -> None:
    """As `gc` does it: who waited must not hold the deleted file beside another who holds a new one."""
    entered, may_go = threading.Event(), threading.Event()

    def wait_for_it() -> None:
        with Registry(registry.home).locked("org/name", SILENT):
            entered.set()
            may_go.wait(60)

    waiting = threading.Thread(target=wait_for_it)
    with registry.locked("org/name"):
        waiting.start()
        time.sleep(0.3)
        assert not entered.is_set()
        paths.lock_path(registry.home, "org/name").unlink()
    try:
        assert entered.wait(60)
        with pytest.raises(LockedError), Registry(registry.home).locked("org/name"):
            pass
    finally:
        may_go.set()
        waiting.join()
