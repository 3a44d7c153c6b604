"""A checkpoint's folder: what is read must lie in it, so that no link brings a file of the user's into a GGUF."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slmkit.errors import ConvertError

_READ = (".json", ".safetensors", ".model", ".jinja", ".md")
_TEMPLATES = "additional_chat_templates"


def check_folder(folder: Path) -> None:
    """Raise `ConvertError` for a file that the converter would read and that is none, or lies elsewhere.

    In the Hugging Face cache a snapshot's files are links to the blobs of the same repository: those are at home.
    """
    for path in _entries(folder):
        home = Path(os.path.realpath(path))
        if path.is_symlink() and not _is_at_home(home, Path(os.path.realpath(folder))):
            raise ConvertError(
                f"{path} is a link out of the checkpoint, to {home}",
                hint="put the file itself in its place if you trust it",
            )
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue  # whoever needs it says so
        except OSError as error:
            raise ConvertError(f"cannot read {path}: {error.strerror}") from error
        if not (stat.S_ISREG(mode) or (path.name == _TEMPLATES and stat.S_ISDIR(mode))):
            raise ConvertError(f"{path} is not a file")


def _entries(folder: Path) -> Iterator[Path]:
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in _READ:
                yield path
            elif path.name == _TEMPLATES:
                yield path
                yield from sorted(path.glob("*.jinja"))
    except OSError as error:
        raise ConvertError(f"cannot read {folder}: {error.strerror}") from error


def _is_at_home(path: Path, folder: Path) -> bool:
    if path.is_relative_to(folder):
        return True
    blobs = Path(os.path.realpath(folder.parent.parent / "blobs"))
    return folder.parent.name == "snapshots" and path.parent == blobs
