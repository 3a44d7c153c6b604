"""The texts that come with slmkit, and the user's own.

One is for importance matrices; those of the domains are what quality is measured on, and share nothing with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

from slmkit.core.imatrix import Calibration
from slmkit.core.quality import ALL_DOMAINS, Corpus, Text
from slmkit.errors import UsageError

DEFAULT = "mixed"
DOMAINS = ("prose", "code", "math", "chat", "tools", "chinese", "german", "arabic")
"""In the order of every table. Each text has 7,000 tokens or more in a vocabulary of 49,152 (SmolLM2's)."""

_FOLDER = resources.files("slmkit") / "data" / "corpora"
_QUALITY = _FOLDER / "quality"


def _pinned() -> Mapping[str, str]:
    rows = (line.split("  ") for line in (_QUALITY / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    return MappingProxyType({name.removesuffix(".txt"): digest for digest, name in rows})


SHA256 = _pinned()
"""Of each domain's text, as UTF-8. Results name it: a text that changes makes them another measurement."""


def names() -> list[str]:
    """Of the corpora in `data/corpora` that importance matrices are collected on."""
    return sorted(entry.name.removesuffix(".txt") for entry in _FOLDER.iterdir() if entry.name.endswith(".txt"))


def corpus(name: str = DEFAULT) -> Calibration:
    """One of them; raises `UsageError` for another name."""
    if name not in names():
        raise UsageError(f"no corpus {name!r}", hint=f"one of {', '.join(names())}; or your own: `--text FILE`")
    return Calibration(name, _read(_FOLDER / f"{name}.txt"))


def domain_text(name: str) -> str:
    """What quality is measured on in one of `DOMAINS`; raises `UsageError` for another name."""
    if name not in DOMAINS:
        raise UsageError(f"no domain {name!r}", hint=f"one of {', '.join(DOMAINS)}; or your own: `--corpus FILE`")
    return _read(_QUALITY / f"{name}.txt")


def evaluation(names: Sequence[str] = ()) -> Corpus:
    """What quality is measured on: the domains of these names, all of them without any, or a text of the user's.

    Raises `UsageError` for a name that is neither.
    """
    wanted = [name for text in names for name in text.split(",") if name] if names else list(DOMAINS)
    texts = []
    for name in wanted:
        if name in DOMAINS:
            texts.append(Text(name, domain_text(name)))
        elif Path(name).is_file() or "/" in name or "." in name:
            texts.append(Text(Path(name).name, text_file(Path(name), option="--corpus").text))
        else:
            raise UsageError(f"no corpus {name!r}", hint=f"some of {', '.join(DOMAINS)}; or a file of plain text")
    if len({text.domain for text in texts}) < len(texts):
        raise UsageError(f"a corpus is named twice: {', '.join(wanted)}")
    return Corpus(ALL_DOMAINS if tuple(wanted) == DOMAINS else ", ".join(t.domain for t in texts), tuple(texts))


def text_file(path: Path, *, option: str = "--text") -> Calibration:
    """The user's own text; raises `UsageError` for a file that is none."""
    try:
        return Calibration(path.name, path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", hint=f"`{option}` takes a file of plain text"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start} is no part of a character") from error


def _read(path: Traversable) -> str:
    return path.read_bytes().decode("utf-8")
