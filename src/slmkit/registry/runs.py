"""Bench runs: one JSON document each, raw samples and all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmkit.errors import RegistryError
from slmkit.registry.atomic import write_text


def save(home: Path, kind: str, document: dict[str, Any]) -> Path:
    """Write one run and return its path. File names sort by time."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = home / "runs" / f"{moment}-{kind}-{secrets.token_hex(3)}.json"
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def load(home: Path, kind: str) -> Iterator[dict[str, Any]]:
    """All runs of a kind, the newest first; raises `RegistryError` for a damaged one."""
    for path in sorted((home / "runs").glob(f"*-{kind}-*.json"), reverse=True):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RegistryError(f"the run {path} is damaged: {error}", hint=f"delete it: `rm {path}`") from error
        yield document
