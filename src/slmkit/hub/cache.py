"""The Hugging Face cache on disk, so that what one tool downloads all others have.

<cache>/models--org--name/blobs/<sha256, or git's sha1 for small files>     the bytes
<cache>/models--org--name/blobs/<...>.slmkit-part                           the bytes so far, ours alone
<cache>/models--org--name/snapshots/<commit>/<path> -> ../../blobs/<...>    the names
<cache>/models--org--name/refs/<branch or tag>                              the commit, as text
<cache>/.locks/models--org--name/<...>.lock                                 one writer for a blob

The layout is documented at https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slmkit.errors import HubError

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    `sha256` is known for large files (LFS), `blob_oid` is git's own: for the others the sha1 of the content behind a
    header, for large ones that of the pointer file. Neither is known for a file that another tool copied into the
    cache.
    """

    path: str
    size_bytes: int
    sha256: str | None
    blob_oid: str

    @property
    def blob_name(self) -> str:
        """What the cache calls its bytes."""
        return self.sha256 or self.blob_oid


class Digest:
    """The digests of one file, taken while its bytes pass; git's only where the Hub knows no sha256."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
        self.size_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        self._sha256.update(data)
        if self._file.sha256 is None:
            self._git.update(data)
        self.size_bytes += len(data)

    def read(self, path: Path) -> None:
        """All bytes of a file."""
        with path.open("rb", buffering=0) as stream:
            while data := stream.read(_CHUNK_BYTES):
                self.update(data)

    @property
    def sha256(self) -> str:
        """Of what has passed."""
        return self._sha256.hexdigest()

    @property
    def fits(self) -> bool:
        """Whether these are the bytes that the Hub promised."""
        if self.size_bytes != self._file.size_bytes:
            return False
        if self._file.sha256 is not None:
            return self.sha256 == self._file.sha256
        return self._file.blob_oid in ("", self._git.hexdigest())


class RepoCache:
    """One repository's folder."""

    def __init__(self, cache_dir: Path, repo: str) -> None:
        folder = f"models--{repo.replace('/', '--')}"
        self.root = cache_dir / folder
        self._locks = cache_dir / ".locks" / folder

    def blob(self, file: RemoteFile) -> Path:
        """Where its bytes belong."""
        return self.root / "blobs" / file.blob_name

    def part(self, file: RemoteFile) -> Path:
        """Where its bytes wait until they are complete and checked."""
        return self.root / "blobs" / f"{file.blob_name}.slmkit-part"

    def lock(self, file: RemoteFile) -> Path:
        """The lock file that huggingface_hub takes for the same blob."""
        return self._locks / f"{file.blob_name}.lock"

    def snapshot(self, commit: str) -> Path:
        """The folder with the names."""
        return self.root / "snapshots" / commit

    def pointer(self, commit: str, path: str) -> Path:
        """The name of a file; raises `HubError` for a path that would leave the folder."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\\" in path:
            raise HubError(f"the repository has an unsafe file name: {path!r}")
        return self.snapshot(commit).joinpath(*parts)

    def link(self, file: RemoteFile, commit: str) -> None:
        """Give the blob its name: a relative symlink, or a hard link or copy where that cannot be."""
        pointer, blob = self.pointer(commit, file.path), self.blob(file)
        if pointer.exists() and (not blob.exists() or pointer.samefile(blob)):
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".slmkit-", dir=self.root) as folder:
            fresh = Path(folder) / "link"
            try:
                fresh.symlink_to(os.path.relpath(blob, pointer.parent))
            except OSError:
                _hard_link(blob, fresh)
            fresh.replace(pointer)

    def commit(self, revision: str) -> str | None:
        """The commit that a branch or tag had when it was last pulled; a commit is itself."""
        ref = self.root / "refs" / revision
        if ref.is_file():
            return ref.read_text(encoding="utf-8").strip()
        return revision if self.snapshot(revision).is_dir() and _SHA1.fullmatch(revision) else None

    def remember(self, revision: str, commit: str) -> None:
        """Note the commit of a branch or tag."""
        ref = self.root / "refs" / revision
        if revision == commit or (ref.is_file() and ref.read_text(encoding="utf-8") == commit):
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        fresh = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        fresh.write_text(commit, encoding="utf-8")
        fresh.replace(ref)

    def files(self, commit: str) -> tuple[RemoteFile, ...]:
        """What is there of a commit, with the digests that the blobs are named by."""
        folder = self.snapshot(commit)
        return tuple(_found(folder, path) for path in sorted(folder.rglob("*")) if path.is_file())


def _found(folder: Path, path: Path) -> RemoteFile:
    name = path.readlink().name if path.is_symlink() else ""
    sha256 = name if _SHA256.fullmatch(name) else None
    oid = name if _SHA1.fullmatch(name) else ""
    return RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256, oid)


def _hard_link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)
