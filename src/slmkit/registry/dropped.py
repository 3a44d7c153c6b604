"""Artifacts whose files were dropped to save room and can be made again: their manifests are kept as recipes.

models/<org>/<name>/<name>-F16.dropped is the manifest that was <name>-F16.json, with the files that are to come back.
A manifest goes before a recipe: while both are there (a killed `gc`), the artifact is.
"""

from __future__ import annotations

from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.registry import manifests, paths

SUFFIX = ".dropped"


def path(home: Path, model: str, variant: str | None) -> Path:
    """Where the recipe of an artifact belongs."""
    return paths.manifest_path(home, model, variant).with_name(f"{paths.stem(model, variant)}{SUFFIX}")


def all_of(home: Path, model: str | None = None) -> list[Artifact]:
    """Every dropped artifact, or those of one model, by name; raises `RegistryError` for a damaged recipe."""
    folders = [paths.model_dir(home, model)] if model else sorted((home / "models").glob("*/*"))
    found = [manifests.read(p) for folder in folders for p in sorted(folder.glob(f"[!.]*{SUFFIX}"))]
    return [a for a in found if not paths.manifest_path(home, a.model, a.variant).is_file()]


def find(home: Path, model: str, variant: str | None) -> Artifact | None:
    """The dropped artifact of that name, its variant in any case."""
    same = [a for a in all_of(home, model) if (a.variant or "").lower() == (variant or "").lower()]
    return same[0] if same else None


def keep(home: Path, artifact: Artifact) -> None:
    """Write the recipe; the caller removes the manifest and the files after it."""
    manifests.write(path(home, artifact.model, artifact.variant), artifact)


def forget(home: Path, model: str, variant: str | None) -> None:
    """Delete the recipe, if there is one."""
    path(home, model, variant).unlink(missing_ok=True)
