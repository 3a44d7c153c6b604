"""Downloads that nobody goes on with: the `.slmkit-part` files in the Hugging Face cache, and no other file of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".slmkit-part"


def cache_dir() -> Path:
    """The Hugging Face cache: `HF_HUB_CACHE`, or what huggingface_hub takes."""
    from huggingface_hub import constants  # 100 ms

    return Path(constants.HF_HUB_CACHE)


def unfinished(cache_dir: Path) -> list[Path]:
    """All of them, those of downloads that are running too."""
    return sorted(cache_dir.glob(f"models--*/blobs/*{SUFFIX}"))


@contextmanager
def alone(part: Path) -> Iterator[bool]:
    """Hold the lock of a download; gives whether it could be had."""
    from filelock import FileLock, Timeout

    repo = part.parent.parent
    path = repo.parent / ".locks" / repo.name / f"{part.name.removesuffix(SUFFIX)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
