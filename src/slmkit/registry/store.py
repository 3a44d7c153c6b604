"""The registry: find, publish, lock, remove."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.errors import CannotWriteError, LockedError, RegistryError, is_disk_full
from slmkit.formats.gguf.header import SHARD
from slmkit.registry import atomic, dropped, manifests, paths

_LOCK_POLL_S = 0.2


@dataclass(frozen=True)
class Removal:
    """What removing would do, before it is done: `slmkit rm --dry-run` shows exactly this.

    `links` are artifacts whose files stay where they are (the Hugging Face cache, the user's folder); `recipes` are
    those whose files were dropped before, which will be forgotten. `imatrix_dirs` are the folders with importance
    matrices of models of which nothing else stays. `orphans` stay as recipes, whose source goes.
    """

    artifacts: tuple[Artifact, ...]
    size_bytes: int
    recipes: tuple[Artifact, ...] = ()
    imatrix_dirs: tuple[Path, ...] = ()
    orphans: tuple[Artifact, ...] = ()

    @property
    def links(self) -> tuple[Artifact, ...]:
        """Artifacts of which only the manifest goes."""
        return tuple(a for a in self.artifacts if not a.owned)


def is_whole(artifact: Artifact) -> bool:
    """Whether all its files are still where they were, in the size they had: quick, where `verify` is thorough."""
    return all(
        path.is_file() and path.stat().st_size == file.size_bytes
        for file in artifact.files
        for path in (artifact.root / file.name,)
    )


def is_current(artifact: Artifact, source_digest: str) -> bool:
    """Whether it was made from these very bytes and is whole: then there is nothing to do."""
    return source_digest in artifact.provenance.parents and is_whole(artifact)


def appear(artifact: Artifact, manifest: Path, staged: Path | None) -> None:
    """Make an artifact known by its manifest; its files are in place, or wait under their names in the folder `staged`.

    All that can fail for want of room is done before, and no manifest describes other bytes for even a moment.

    Raises `DiskFullError`; what was there before is then untouched.
    """
    try:
        with atomic.partial(manifest) as temporary:
            temporary.write_text(manifests.text(artifact, manifest.parent), encoding="utf-8")
            if staged is not None:
                for path in (temporary, *staged.iterdir()):
                    atomic.flush(path)  # from here on only names change, which needs no room
                _place(staged, artifact, manifest)
    except OSError as error:
        if is_disk_full(error):
            raise atomic.disk_full(manifest) from error
        raise


def _place(staged: Path, artifact: Artifact, manifest: Path) -> None:
    """Move the files to where they belong; the old manifest is out of the way while they are not what it says."""
    try:
        before = manifests.read(manifest) if manifest.is_file() else None
    except RegistryError:  # damaged: it says nothing about any file
        before = None
    if before is not None and before.files == artifact.files:
        atomic.place(staged, artifact.root)
        return
    with atomic.scratch(manifest.parent) as aside:
        if manifest.is_file():
            manifest.replace(aside / manifest.name)
        try:
            atomic.place(staged, artifact.root)
        except BaseException:  # Ctrl-C, too
            if before is not None and is_whole(before):
                (aside / manifest.name).replace(manifest)
            raise


class Registry:
    """All artifacts below one `SLMKIT_HOME`. Any number of readers; one writer for a model at a time."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or paths.home()

    def artifacts(self, model: str | None = None) -> list[Artifact]:
        """Everything that is complete, or all variants of one model; checkpoints first, then by name."""
        folders = [paths.model_dir(self.home, model)] if model else sorted((self.home / "models").glob("*/*"))
        found = [manifests.read(path) for folder in folders for path in sorted(folder.glob("[!.]*.json"))]
        return sorted(found, key=lambda a: (a.model.lower(), a.variant is not None, a.variant or ""))

    def find(self, model: str, variant: str | None) -> Artifact | None:
        """The artifact of that name, its variant in any case, whatever its files are now; `None` for no manifest."""
        path = paths.manifest_path(self.home, model, variant)
        if not path.is_file():
            same = [a for a in self.artifacts(model) if (a.variant or "").lower() == (variant or "").lower()]
            return same[0] if same else None
        return manifests.read(path)

    def find_current(self, source: Artifact, variant: str) -> Artifact | None:
        """The variant that was made from these very bytes of `source`, if it is whole: then there is nothing to do."""
        found = self.find(source.model, variant)
        return found if found and is_current(found, source.digest) else None

    def publish(self, artifact: Artifact, staged: Path | None = None) -> None:
        """Make a complete artifact known. Its files are in place, or wait under their names in the folder `staged`.

        A GGUF made here takes the place of an earlier one of the variant: files of that which are not its own go. All
        that can fail for want of room is done before, and no manifest describes other bytes for even a moment.

        Raises `DiskFullError`; what was registered before is then untouched.
        """
        appear(artifact, paths.manifest_path(self.home, artifact.model, artifact.variant), staged)
        dropped.forget(self.home, artifact.model, artifact.variant)
        if artifact.owned and artifact.variant is not None:
            whole = paths.gguf_path(self.home, artifact.model, artifact.variant)
            kept = {artifact.root / f.name for f in artifact.files}
            for path in {whole, *whole.parent.glob(f"{glob.escape(whole.stem)}-*.gguf")} - kept:
                match = SHARD.fullmatch(path.name)
                if path == whole or (match and match["prefix"] == whole.stem):
                    path.unlink(missing_ok=True)

    @contextmanager
    def locked(self, model: str, waiting: Progress | None = None) -> Iterator[None]:
        """Be the only writer of a model. While another process is, `waiting` is told once and this waits; without it
        `LockedError` is raised. Clears what a dead writer left. Raises `CannotWriteError`, `DiskFullError`.
        """
        from filelock import FileLock, Timeout  # 5 ms, which looking need not wait for

        path = paths.lock_path(self.home, model)
        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            if waiting is None:
                raise LockedError(
                    f"another slmkit is working on {model}", hint="wait until it is done and run the same command again"
                ) from error
            waiting.say(f"another slmkit is working on {model}: waiting")
            lock.acquire(poll_interval=_LOCK_POLL_S)
        except OSError as error:
            if is_disk_full(error):
                raise atomic.disk_full(path) from error
            raise CannotWriteError(
                f"the registry cannot be written: {path.parent}: {error.strerror}",
                hint="set SLMKIT_HOME to a folder that is yours",
            ) from error
        try:
            atomic.clear_partials(paths.model_dir(self.home, model))
            yield
        finally:
            lock.release()

    def plan_removal(self, artifacts: Sequence[Artifact], recipes: Sequence[Artifact] = ()) -> Removal:
        """What removing these, and forgetting those that were dropped, would delete and free."""
        going = (*artifacts, *recipes)
        models = {
            a.model
            for a in going
            if all(other in going for other in (*self.artifacts(a.model), *dropped.all_of(self.home, a.model)))
        }
        dirs = [path for model in sorted(models) if (path := paths.imatrix_dir(self.home, model)).is_dir()]
        size_bytes = sum(a.size_bytes for a in artifacts if a.owned)
        size_bytes += sum(file.stat().st_size for path in dirs for file in path.iterdir())
        return Removal(tuple(artifacts), size_bytes, tuple(recipes), tuple(dirs), self._orphans(going))

    def _orphans(self, going: Sequence[Artifact]) -> tuple[Artifact, ...]:
        """Dropped ones that could not be made again without these; a checkpoint of the Hub is pulled again."""
        every = dropped.all_of(self.home)
        kept = {a.digest for a in (*self.artifacts(), *every) if a not in going} if every else set()
        lost = {a.digest for a in going} - kept
        return tuple(
            a
            for a in every
            if a not in going and lost & set(a.provenance.parents)
            if a.provenance.action != "convert" or a.provenance.commit is None
        )

    def remove(self, removal: Removal) -> None:
        """Do it: manifests first, so that nothing half deleted looks complete."""
        for artifact in removal.artifacts:
            with self.locked(artifact.model):
                self.delete(artifact)
        for artifact in removal.recipes:
            with self.locked(artifact.model):
                dropped.forget(self.home, artifact.model, artifact.variant)
                _prune(paths.model_dir(self.home, artifact.model), self.home / "models")
        for model in sorted({a.model for a in (*removal.artifacts, *removal.recipes)}):
            imatrix_dir = paths.imatrix_dir(self.home, model)
            if imatrix_dir in removal.imatrix_dirs:
                with self.locked(model):
                    shutil.rmtree(imatrix_dir, ignore_errors=True)
                    _prune(imatrix_dir.parent, self.home / "imatrix")

    def drop(self, artifact: Artifact) -> None:
        """Delete the files of one that was made here, and keep its manifest as a recipe; the caller holds the lock."""
        dropped.keep(self.home, artifact)
        self.delete(artifact)

    def delete(self, artifact: Artifact) -> None:
        """Delete one, never outside its model's folder; the caller holds the lock."""
        folder = paths.model_dir(self.home, artifact.model)
        owned = [_inside(folder, artifact.root / f.name) for f in artifact.files] if artifact.owned else []
        paths.manifest_path(self.home, artifact.model, artifact.variant).unlink(missing_ok=True)
        for path in owned:
            path.unlink(missing_ok=True)
        for path in {p.parent for p in owned} | {folder}:
            _prune(path, self.home / "models")


def _inside(folder: Path, path: Path) -> Path:
    """Never delete outside the model's folder, whatever a manifest says."""
    if folder.resolve() not in path.resolve().parents:
        raise RegistryError(f"{path} is outside {folder}: not deleted", hint="the manifest was edited; delete by hand")
    return path


def _prune(folder: Path, top: Path) -> None:
    """Remove empty folders, up to `top`."""
    for path in (folder, *folder.parents):
        if path == top or (path.is_dir() and any(path.iterdir())):
            return
        if path.is_dir():
            path.rmdir()
