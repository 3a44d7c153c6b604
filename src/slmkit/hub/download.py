"""Files of a repository into the Hugging Face cache: resumed across processes, every byte checked.

What has arrived waits in `blobs/<digest>.slmkit-part`, so the name says what it is a part of, and whoever comes next
(another process, another day) hashes it and asks for the rest with `Range`. Only a file whose size and digest are
right gets its final name. huggingface_hub does neither: it starts anew in each process and compares only the size.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from slmkit.core.artifact import File
from slmkit.core.progress import SILENT, Progress, Task
from slmkit.core.units import size
from slmkit.errors import ConnectionCutError, DiskFullError, HubError, WrongBytesError, is_disk_full
from slmkit.hub.cache import Digest, RemoteFile, RepoCache
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.faults import PassingError

MARGIN = 0.05
"""Share of the missing bytes that must be free beyond them."""


@dataclass(frozen=True)
class Downloaded:
    """A snapshot folder and the files in it that were asked for, in the order of asking."""

    root: Path
    files: tuple[File, ...]


def download(
    client: HubClient, snapshot: RepoSnapshot, files: Sequence[RemoteFile], *, progress: Progress = SILENT
) -> Downloaded:
    """Make `files` complete in the cache; what is there already is hashed and not asked for again.

    May be interrupted at any byte. Raises `DiskFullError` (before the first byte if it can be foreseen),
    `WrongBytesError`, `ConnectionCutError`, `NoNetworkError`, `OfflineError` and what the Hub's refusals map to.
    """
    store = RepoCache(client.cache_dir, snapshot.repo)
    have = {file.path: _have_bytes(store, snapshot, file) for file in files}
    total = sum(file.size_bytes for file in files)
    _check_room(store.root, snapshot.repo, total - sum(have.values()))
    done = []
    with (
        _disk_errors(store.root, snapshot.repo),
        progress.task(f"pull {snapshot.repo}", total, "bytes", done=sum(have.values())) as task,
    ):
        for file in files:
            fetch = _Fetch(client, snapshot, file, store, _Meter(task, have[file.path]), progress)
            done.append(File(file.path, file.size_bytes, fetch.run()))
        store.remember(snapshot.revision, snapshot.commit)
    return Downloaded(store.snapshot(snapshot.commit), tuple(done))


def missing_bytes(client: HubClient, snapshot: RepoSnapshot, files: Sequence[RemoteFile]) -> int:
    """What `download` of them would still have to bring."""
    store = RepoCache(client.cache_dir, snapshot.repo)
    return sum(file.size_bytes - _have_bytes(store, snapshot, file) for file in files)


class _Meter:
    """Tells the progress where in a file we are; a start from the beginning moves it back."""

    def __init__(self, task: Task, position: int) -> None:
        self._task = task
        self._position = position

    def to(self, position: int) -> None:
        if position != self._position:
            self._task.advance(position - self._position)
            self._position = position


class _Part:
    """The bytes so far, on disk and in the digest."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self._path = path
        self._file = file
        self.digest = Digest(file)
        if path.exists() and path.stat().st_size <= file.size_bytes:
            self.digest.read(path)
        self.resumed = self.size_bytes > 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab" if self.resumed else "wb", buffering=0)

    @property
    def size_bytes(self) -> int:
        return self.digest.size_bytes

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # a full disk takes a piece before it refuses
            written = self._stream.write(left)
            self.digest.update(left[:written])
            left = left[written:]

    def restart(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self.digest = Digest(self._file)
        self.resumed = False

    def keep(self, blob: Path) -> None:
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._path.replace(blob)

    def discard(self) -> None:
        self._stream.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """An empty part is worth nothing to the next process."""
        self._stream.close()
        if not self.size_bytes:
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Fetch:
    """One file."""

    client: HubClient
    snapshot: RepoSnapshot
    file: RemoteFile
    store: RepoCache
    meter: _Meter
    progress: Progress

    def run(self) -> str:
        """Make it complete; returns its sha256."""
        pointer = self.store.pointer(self.snapshot.commit, self.file.path)
        if not self.file.blob_name:
            return self._checked(pointer) or self._wrong()
        with self._alone():
            blob = self.store.blob(self.file)
            found = self._checked(blob) or self._checked(pointer) or self._receive(blob)
            self.store.link(self.file, self.snapshot.commit)
        self.meter.to(self.file.size_bytes)
        return found

    def _checked(self, path: Path) -> str | None:
        """The sha256 of a complete file, or `None`; wrong bytes under a final name would fool everyone: they go."""
        if not path.exists():
            return None
        digest = Digest(self.file)
        digest.read(path)
        if digest.fits:
            return digest.sha256
        self.progress.warn(f"{self.file.path} in the Hugging Face cache is damaged")
        if not self.client.offline:
            path.unlink()
        return None

    def _receive(self, blob: Path) -> str:
        part = _Part(self.store.part(self.file), self.file)
        try:
            self._complete(part)
            if not part.digest.fits and part.resumed:
                self.progress.warn(f"what an earlier run left of {self.file.path} is damaged: starting again")
                part.restart()
                self._complete(part)
            if not part.digest.fits:
                part.discard()
                self._wrong()
            part.keep(blob)
            return part.digest.sha256
        finally:
            part.close()

    def _complete(self, part: _Part) -> None:
        """Ask until all bytes are there; as long as some arrive, a broken connection is only a pause."""
        patience, furthest = self.client.patience(), part.size_bytes
        while part.size_bytes < self.file.size_bytes:
            try:
                with self.client.open(self.snapshot, self.file, part.size_bytes) as response:
                    self._read(response, part)
            except PassingError as passing:
                if part.size_bytes > furthest:
                    patience.renew()
                    furthest = part.size_bytes
                patience.bear(passing)

    def _read(self, response: httpx.Response, part: _Part) -> None:
        if part.size_bytes and not _continues(response, part.size_bytes):
            part.restart()
            if response.status_code != 200:
                return
        self._check_promise(response, part)
        self.meter.to(part.size_bytes)
        for data in response.iter_raw():
            part.write(data)
            self.meter.to(part.size_bytes)
            if part.size_bytes > self.file.size_bytes:
                part.discard()
                self._wrong()
        if part.size_bytes < self.file.size_bytes:
            raise PassingError(
                ConnectionCutError(
                    f"the Hub sent {size(part.size_bytes)} of {size(self.file.size_bytes)} of {self.file.path}",
                    hint="run the same command again: it continues where it stopped",
                )
            )

    def _check_promise(self, response: httpx.Response, part: _Part) -> None:
        """See from the headers that it is another file, before taking gigabytes of it."""
        hub = response.history[0] if response.history else response
        etag = hub.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
        length = response.headers.get("Content-Length", "")
        expected = self.file.size_bytes - part.size_bytes
        if (self.file.sha256 and etag not in ("", self.file.sha256)) or (length and int(length) != expected):
            part.discard()
            self._wrong()

    def _wrong(self) -> str:
        raise WrongBytesError(
            f"{self.file.path} of {self.snapshot.repo} did not arrive as the Hub promised it; the bytes were deleted",
            hint="run the same command again; if it stays so, a proxy or mirror (HF_ENDPOINT) alters the files",
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one that writes this blob; whoever waited finds it done."""
        path = self.store.lock(self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.progress.say(f"another process is downloading {self.file.path}: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _continues(response: httpx.Response, offset: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _have_bytes(store: RepoCache, snapshot: RepoSnapshot, file: RemoteFile) -> int:
    if store.pointer(snapshot.commit, file.path).exists() or (file.blob_name and store.blob(file).exists()):
        return file.size_bytes
    part = store.part(file)
    return min(part.stat().st_size, file.size_bytes) if part.exists() else 0


def _check_room(folder: Path, repo: str, missing_bytes: int) -> None:
    free = _free_bytes(folder)
    if missing_bytes * (1 + MARGIN) > free:
        raise _disk_full(folder, f"{repo} needs {size(missing_bytes)} more, {size(free)} are free")


@contextmanager
def _disk_errors(folder: Path, repo: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise HubError(
                f"cannot write to the Hugging Face cache: {error}", hint="set HF_HUB_CACHE to a folder of your own"
            ) from error
        if not is_disk_full(error):
            raise
        raise _disk_full(folder, f"no room for the rest of {repo}, {size(_free_bytes(folder))} are free") from error


def _disk_full(folder: Path, what: str) -> DiskFullError:
    return DiskFullError(
        f"{what} on the disk of {folder.parent}",
        hint="free some (`slmkit rm REF`, `hf cache prune`) or set HF_HUB_CACHE to another disk; what is there is kept",
    )


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
