"""Importance matrices: kept beside the models, each with a manifest like theirs, whose parent is the model's file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.formats.gguf.header import read_header
from slmkit.registry import atomic, manifests, paths
from slmkit.registry.store import Registry, appear, is_current

UNFINISHED = ".unfinished-"
_SUFFIX = ".gguf"


@dataclass(frozen=True)
class Place:
    """Where the importance matrix `label` of a model belongs; `state` holds an unfinished one."""

    target: Path
    manifest: Path
    state: Path


def place(registry: Registry, model: str, label: str) -> Place:
    """See `Place`."""
    folder = paths.imatrix_dir(registry.home, model)
    return Place(folder / f"{label}{_SUFFIX}", folder / f"{label}.json", folder / f"{UNFINISHED}{label}{_SUFFIX}")


def every(registry: Registry, model: str) -> list[Artifact]:
    """All of a model, the newest first."""
    found = [manifests.read(path) for path in sorted(paths.imatrix_dir(registry.home, model).glob("[!.]*.json"))]
    return sorted(found, key=lambda a: a.created, reverse=True)


def all_of(registry: Registry) -> list[Artifact]:
    """Those of all models."""
    return [manifests.read(path) for path in sorted((registry.home / "imatrix").glob("*/*/[!.]*.json"))]


def find(registry: Registry, model: str, label: str) -> Artifact | None:
    """The one of that name, if there is one."""
    path = place(registry, model, label).manifest
    return manifests.read(path) if path.is_file() else None


def newest(registry: Registry, source: Artifact) -> Artifact | None:
    """The latest that was collected on these very bytes of `source` and is whole."""
    return next((a for a in every(registry, source.model) if is_current(a, source.digest)), None)


def is_imatrix(path: Path) -> bool:
    """Whether a file is one rather than a model: a GGUF that says so, or llama.cpp's older `.dat`."""
    if path.suffix == ".dat" or not path.is_file():
        return path.is_file()
    return read_header(path).metadata.get("general.type") == "imatrix"


@contextmanager
def locked(registry: Registry, model: str, waiting: Progress) -> Iterator[None]:
    """Be the only writer of a model's files; another process is waited for, and `waiting` is told."""
    with registry.locked(model, waiting):
        folder = paths.imatrix_dir(registry.home, model)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.clear_partials(folder)
        yield


def publish(registry: Registry, artifact: Artifact, staged: Path) -> None:
    """Make it known, its file waiting in the folder `staged`; what an unfinished run saved is no longer needed.

    Raises `DiskFullError`; an earlier one of the name is then untouched.
    """
    assert artifact.variant is not None
    here = place(registry, artifact.model, artifact.variant)
    appear(artifact, here.manifest, staged)
    here.state.unlink(missing_ok=True)
