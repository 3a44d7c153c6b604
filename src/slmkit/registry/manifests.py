"""Artifacts as JSON documents.

Schema 1: {"schema": 1, "model", "variant", "root", "owned", "created", "digest", "files": [{name, size_bytes,
sha256}], "provenance": {action, repo, commit, parents, parameters, tools, notes}, "facts": {...}}. The root of an
owned artifact is written relative to the manifest's own folder, so that a registry can be moved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.errors import RegistryError
from slmkit.registry.atomic import write_text

SCHEMA = 1


def to_document(artifact: Artifact, folder: Path) -> dict[str, Any]:
    """What stands in the manifest that lies in `folder`."""
    p = artifact.provenance
    return {
        "schema": SCHEMA,
        "model": artifact.model,
        "variant": artifact.variant,
        "root": artifact.root.relative_to(folder).as_posix() if artifact.owned else str(artifact.root),
        "owned": artifact.owned,
        "created": artifact.created,
        "digest": artifact.digest,
        "files": [{"name": f.name, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in artifact.files],
        "provenance": {
            "action": p.action,
            "repo": p.repo,
            "commit": p.commit,
            "parents": list(p.parents),
            "parameters": dict(p.parameters),
            "tools": dict(p.tools),
            "notes": list(p.notes),
        },
        "facts": dict(artifact.facts),
    }


def text(artifact: Artifact, folder: Path) -> str:
    """The manifest that lies in `folder`, as it is written."""
    return json.dumps(to_document(artifact, folder), indent=1, ensure_ascii=False) + "\n"


def write(path: Path, artifact: Artifact) -> None:
    """Write the manifest; it appears whole or not at all."""
    write_text(path, text(artifact, path.parent))


def read(path: Path) -> Artifact:
    """Read one manifest; raises `RegistryError` for a damaged or newer one."""
    try:
        doc = json.loads(path.read_text(encoding="utf-8"))
        if doc["schema"] != SCHEMA:
            raise RegistryError(f"{path} has schema {doc['schema']}, this slmkit knows {SCHEMA}", hint="update slmkit")
        p = doc["provenance"]
        return Artifact(
            model=doc["model"],
            variant=doc["variant"],
            root=path.parent / doc["root"],
            files=tuple(File(f["name"], f["size_bytes"], f["sha256"]) for f in doc["files"]),
            owned=doc["owned"],
            provenance=Provenance(
                p["action"], p["repo"], p["commit"], tuple(p["parents"]), p["parameters"], p["tools"], tuple(p["notes"])
            ),
            created=doc["created"],
            facts=doc["facts"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"the manifest {path} is damaged: {error}", hint=f"delete it: `rm {path}`") from error
