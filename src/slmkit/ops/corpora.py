"""The texts that come with slmkit, and the user's own: what an importance matrix is collected on."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from slmkit.core.imatrix import Calibration
from slmkit.errors import UsageError

DEFAULT = "mixed"


def names() -> list[str]:
    """Of the corpora in `data/corpora`."""
    folder = resources.files("slmkit") / "data" / "corpora"
    return sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))


def corpus(name: str = DEFAULT) -> Calibration:
    """One of them; raises `UsageError` for another name."""
    if name not in names():
        raise UsageError(f"no corpus {name!r}", hint=f"one of {', '.join(names())}; or your own: `--text FILE`")
    path = resources.files("slmkit") / "data" / "corpora" / f"{name}.txt"
    return Calibration(name, path.read_bytes().decode("utf-8"))


def text_file(path: Path) -> Calibration:
    """The user's own text; raises `UsageError` for a file that is none."""
    try:
        return Calibration(path.name, path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="`--text` takes a file of plain text") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start} is no part of a character") from error
