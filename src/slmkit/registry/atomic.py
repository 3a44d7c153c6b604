"""Files that appear whole or not at all: temporary file, fsync, rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slmkit.core.units import size
from slmkit.errors import DiskFullError, is_disk_full

PARTIAL = ".partial-"
_CHUNK_BYTES = 4 * 1024 * 1024
_UMASK = threading.Lock()
"""It can only be read by changing it, and that for the whole process."""


@contextmanager
def partial(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that becomes it when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{PARTIAL}{os.getpid()}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(target) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, for it or its shards under their final names.

    When the block ends well the files in it move to where `target` belongs, all of them or none (what they replace is
    gone); when it does not, they vanish. Raises `DiskFullError`.
    """
    with scratch(target.parent) as folder:
        try:
            yield folder
            for path in folder.iterdir():
                flush(path)
            place(folder, target.parent)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(target) from error
            raise


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent` that vanishes in the end; of a process that was killed `gc` finds it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Delete a folder and all in it, if it is there: Ctrl-C in the middle of that waits until it is gone."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def place(folder: Path, target: Path) -> None:
    """Move the flushed files of `folder` to `target`: all of them or none."""
    moved: list[Path] = []
    try:
        for path in sorted(folder.iterdir()):
            moved.append(path.replace(target / path.name))
        _sync_folder(target)
    except BaseException:  # Ctrl-C, too
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def require_space(target: Path, size_bytes: int) -> None:
    """Raise `DiskFullError` when the disk of `target` has no `size_bytes` left."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise DiskFullError(
            f"{target.name} needs {size(size_bytes)}, {folder} has {size(free)} free",
            hint="free some space, or name a place on another disk",
        )


def write_text(target: Path, text: str) -> None:
    """Replace `target` with `text`; raises `DiskFullError`."""
    with partial(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Of a file, in constant memory; `advance` is told how many more bytes are done, and may end it by an error."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if advance:
                advance(len(chunk))
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Bring a file's data to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def disk_full(target: Path) -> DiskFullError:
    """The error for it."""
    return DiskFullError(
        f"no space left on the disk of {target.parent}",
        hint="free some: `slmkit list` shows sizes, `slmkit rm REF` deletes; or set SLMKIT_HOME to another disk",
    )


def writer(partial: Path) -> int | None:
    """The process that writes a partial file or folder, or wrote it; `None` for a name that is not ours."""
    number = partial.name.removeprefix(PARTIAL).partition("-")[0]
    return int(number) if partial.name.startswith(PARTIAL) and number.isdigit() else None


def is_left(partial: Path) -> bool:
    """Whether a partial file or folder is ours, and the process that wrote it is gone."""
    pid = writer(partial)
    return pid is not None and not _is_alive(pid)


def clear_partials(folder: Path) -> None:
    """Delete what interrupted writers left; the caller holds the folder's lock."""
    for path in folder.glob(f"{PARTIAL}*"):
        _delete(path)


def clear_left(folder: Path) -> None:
    """Delete what killed writers left in a folder of the user's, that nobody locks."""
    for path in folder.glob(f"{PARTIAL}*"):
        if is_left(path):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        remove(path)
    else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _umask() -> int:
    with _UMASK:
        mask = os.umask(0o022)
        os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
