"""What must hold of a registry at every moment, whoever was killed before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from slmkit.core.progress import SILENT
from slmkit.registry import atomic, dropped, imatrices, paths
from slmkit.registry.garbage import find
from slmkit.registry.store import Registry
from slmkit.registry.verify import verify


def check(home: Path, *, settled: bool = False) -> None:
    """Every manifest can be read and tells the truth, and no two claim one file.

    Files that no manifest claims are allowed only as garbage that `gc` finds; when the registry is `settled` there are
    none: no half-written file, no orphan, no recipe beside a manifest.
    """
    registry = Registry(home)
    artifacts = [*registry.artifacts(), *imatrices.all_of(registry)]
    assert [damage for artifact in artifacts for damage in verify(artifact, SILENT)] == []
    claims = Counter(artifact.root / file.name for artifact in artifacts for file in artifact.files)
    assert [path for path, n in claims.items() if n > 1] == []
    for artifact in registry.artifacts():
        assert paths.manifest_path(home, artifact.model, artifact.variant).is_file(), "a manifest of another name"

    garbage = {item.path for item in find(registry, SILENT)}
    kept = {*claims, *home.glob("*/*/*/*.json"), *home.glob(f"models/*/*/*{dropped.SUFFIX}")}
    files = [p for folder in ("models", "imatrix") for p in (home / folder).rglob("*") if p.is_file()]
    unknown = [p for p in files if p not in kept and not garbage & {p, *p.parents}]
    assert unknown == [], "no manifest has it, and gc does not find it"
    if settled:
        assert {path for path in garbage if path.suffix != ".lock"} == set()
        assert list(home.rglob(f"{atomic.PARTIAL}*")) == []
        recipes = [paths.manifest_path(home, a.model, a.variant) for a in dropped.all_of(home)]
        assert [path for path in recipes if path.exists()] == []
