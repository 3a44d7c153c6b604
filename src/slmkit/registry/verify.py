"""Are the files still what they were when they were registered?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.errors import FormatError
from slmkit.formats.gguf.header import check_structure
from slmkit.registry.atomic import sha256


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with one file."""

    ref: str
    path: Path
    what: str


def verify(artifact: Artifact, progress: Progress) -> list[Damage]:
    """Sizes, structure and sha256 of every file; an empty list means sound."""
    damage: list[Damage] = []
    with progress.task(f"verify {artifact.ref}", artifact.size_bytes, "bytes") as task:
        for file in artifact.files:
            path = artifact.root / file.name
            what = _problem(path, file.size_bytes, file.sha256)
            if what:
                damage.append(Damage(artifact.ref, path, what))
            task.advance(file.size_bytes)
    return damage


def _problem(path: Path, size_bytes: int, digest: str) -> str | None:
    if not path.is_file():
        return "is gone"
    actual = path.stat().st_size
    if actual != size_bytes:
        return f"has {actual:,} bytes instead of {size_bytes:,}"
    if path.suffix == ".gguf":
        try:
            check_structure(path)
        except FormatError as error:
            return error.message
    return None if sha256(path) == digest else "has other contents than when it was registered (sha256)"
