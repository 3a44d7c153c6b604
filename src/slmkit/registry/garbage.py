"""What nothing refers to: left by writers that were killed, by hand, or by models that are gone.

`find` only looks, and takes no lock: a writer that is at work may be mistaken for a dead one. `free` looks again under
the model's lock, and deletes only what is left by the dead.
"""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT, Progress
from slmkit.errors import LockedError, RegistryError
from slmkit.registry import atomic, dropped, imatrices, paths
from slmkit.registry.lineage import Family, state
from slmkit.registry.store import Registry

Kind = Literal["partial", "orphan", "broken", "recipe", "lock", "table", "unfinished", "download"]

KINDS: dict[Kind, str] = {
    "partial": "half-written files of processes that are gone",
    "orphan": "files without a manifest: what an interrupted run left",
    "broken": "manifests whose files are gone",
    "recipe": "recipes of dropped files that are here again",
    "lock": "locks of models that are gone",
    "table": "measured errors of files that are gone",
    "unfinished": "unfinished importance matrices; `slmkit imatrix` would go on from them",
    "download": "unfinished downloads; a pull would go on from them",
}


@dataclass(frozen=True)
class Garbage:
    """One file or folder to be freed. `model` is that whose lock is needed, `None` for none."""

    kind: Kind
    path: Path
    size_bytes: int
    model: str | None = None
    artifact: Artifact | None = None


@dataclass(frozen=True)
class Freed:
    """What is deleted, and what is not because another process works on its model."""

    deleted: tuple[Garbage, ...]
    busy: tuple[Garbage, ...]

    @property
    def size_bytes(self) -> int:
        """Of what is deleted."""
        return sum(item.size_bytes for item in self.deleted)


def find(registry: Registry, progress: Progress) -> list[Garbage]:
    """All garbage of the registry, by kind and path; nothing is changed."""
    known = _family(registry, progress)
    found = [item for model in _models(registry) for item in _of_model(registry, model, known)]
    found += _of_home(registry, known)
    found += _locks(registry)
    order = list(KINDS)
    return sorted(found, key=lambda item: (order.index(item.kind), str(item.path)))


def free(registry: Registry, plan: Sequence[Garbage]) -> Freed:
    """Delete what is in `plan` and still garbage; what another process works on stays, and is told."""
    still = {item.path for item in _of_home(registry, _family(registry, SILENT))}
    deleted = [item for item in plan if item.model is None and item.path in still and _delete(registry, item)]
    busy: list[Garbage] = []
    for model in dict.fromkeys(item.model for item in plan if item.model is not None):
        wanted = [item for item in plan if item.model == model]
        try:
            with registry.locked(model):  # it clears the partial files itself
                now = {item.path for item in _of_model(registry, model, _family(registry, SILENT))}
                if not any(folder.exists() for folder in _folders(registry, model)):
                    now.add(paths.lock_path(registry.home, model))
                deleted += [item for item in wanted if item.kind == "partial" and not item.path.exists()]
                deleted += [item for item in wanted if item.path in now and _delete(registry, item)]
                for folder in _folders(registry, model):
                    _tidy(folder)
        except LockedError:
            busy += wanted
    return Freed(tuple(deleted), tuple(busy))


def _family(registry: Registry, progress: Progress) -> Family | None:
    """All that is known; nothing when a manifest cannot be read, which may be that of any file."""
    try:
        return Family(registry)
    except RegistryError as error:
        progress.warn(f"{error.message}; it may be that of any file, so only half-written files are looked for")
        return None


def _models(registry: Registry) -> list[str]:
    """All that have a folder."""
    found = [*(registry.home / "models").glob("*/*"), *(registry.home / "imatrix").glob("*/*")]
    return sorted({paths.model_of(folder) for folder in found if folder.is_dir()})


def _folders(registry: Registry, model: str) -> tuple[Path, Path]:
    """Of its files, and of its importance matrices."""
    return paths.model_dir(registry.home, model), paths.imatrix_dir(registry.home, model)


def _of_model(registry: Registry, model: str, known: Family | None) -> Iterator[Garbage]:
    folder, imatrix = _folders(registry, model)
    yield from _partials([folder, imatrix], model)
    for path in sorted(imatrix.glob(f"{imatrices.UNFINISHED}*")):
        yield Garbage("unfinished", path, _size_bytes([path]), model)
    if known is None:
        return
    for artifact in registry.artifacts(model):
        if state(artifact) == "gone" and _is_forgettable(artifact, known):
            manifest = paths.manifest_path(registry.home, model, artifact.variant)
            left = [p for f in artifact.files if artifact.owned for p in (artifact.root / f.name,) if p.is_file()]
            yield Garbage("broken", manifest, _size_bytes(left), model, artifact)
    for artifact in imatrices.every(registry, model):
        if state(artifact) == "gone" and not known.children(artifact.digest):
            yield Garbage("broken", imatrices.place(registry, model, artifact.variant or "").manifest, 0, model)
    for path in sorted(folder.glob(f"[!.]*{dropped.SUFFIX}")):
        if path.with_suffix(".json").is_file():
            yield Garbage("recipe", path, _size_bytes([path]), model)
    claimed = {a.root / f.name for k in known if k.state != "dropped" for a in (k.artifact,) for f in a.files}
    ours = [*folder.glob(f"{glob.escape(paths.stem(model, ''))}*.gguf"), *imatrix.glob("[!.]*.gguf")]
    for path in sorted(ours):
        if path not in claimed:
            yield Garbage("orphan", path, _size_bytes([path]), model)
    restored = folder / "checkpoint"
    if restored.is_dir() and not paths.manifest_path(registry.home, model, None).is_file():
        yield Garbage("orphan", restored, _size_bytes([restored]), model)


def _is_forgettable(artifact: Artifact, known: Family) -> bool:
    """Files that were linked may be on a disk that is not there just now; and who was made from them needs to know."""
    if artifact.owned:
        return True
    needed = bool(known.children(artifact.digest))
    return not needed and (artifact.provenance.action == "pull" or artifact.root.is_dir())


def _partials(folders: Iterable[Path], model: str | None) -> Iterator[Garbage]:
    for folder in folders:
        for path in sorted(folder.glob(f"{atomic.PARTIAL}*")):
            if atomic.is_left(path):
                yield Garbage("partial", path, _size_bytes([path]), model)


def _of_home(registry: Registry, known: Family | None) -> Iterator[Garbage]:
    """What belongs to no model's folder, and needs no lock."""
    yield from _partials([registry.home, *(f for f in sorted(registry.home.glob("[!.]*")) if f.is_dir())], None)
    if known is None:
        return
    here = {entry.artifact.digest for entry in known} | {entry.artifact.ref for entry in known}
    parents = {digest for entry in known for digest in entry.artifact.provenance.parents}
    for path in sorted(paths.distortion_path(registry.home, "").parent.glob("[!.]*.json")):
        if not _measured(path) & (here | parents):
            yield Garbage("table", path, _size_bytes([path]))


def _measured(path: Path) -> set[str]:
    """Of which file a table of errors is: its digest, or in older ones its name; nothing when nobody can read it."""
    try:
        document = json.loads(path.read_text("utf-8"))
        return {document.get("digest", document["source"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _locks(registry: Registry) -> Iterator[Garbage]:
    for path in sorted((registry.home / "locks").glob("*.lock")):
        model = unquote(path.stem)
        if "/" in model and not any(folder.exists() for folder in _folders(registry, model)):
            yield Garbage("lock", path, _size_bytes([path]), model)


def _delete(registry: Registry, item: Garbage) -> bool:
    """Delete it; says whether it was there."""
    if not item.path.exists():
        return False
    if item.kind == "broken" and item.artifact is not None:
        if item.artifact.owned and item.artifact.provenance.action in ("convert", "quantize"):
            registry.drop(item.artifact)  # its recipe costs nothing
        else:
            registry.delete(item.artifact)
    elif item.path.is_dir():
        shutil.rmtree(item.path, ignore_errors=True)
    else:
        item.path.unlink(missing_ok=True)
    return True


def _tidy(folder: Path) -> None:
    """Remove a model's folder when it is empty, and that of its owner."""
    for path in (folder, folder.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _size_bytes(paths_: Iterable[Path]) -> int:
    """On disk, of files and of all in folders."""
    files = (f for p in paths_ for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file() and not f.is_symlink())
    return sum(f.stat().st_size for f in files)
