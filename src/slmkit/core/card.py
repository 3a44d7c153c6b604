"""What the README of a GGUF repository is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slmkit.core.artifact import File
from slmkit.core.compare import Comparison


@dataclass(frozen=True)
class License:
    """An identifier of the Hub, such as `apache-2.0`; `other` has a name and a link. `said_by` is where it was read."""

    id: str
    said_by: str
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class CardFile:
    """One GGUF, in one file or in shards, and how it was made.

    `settings` are those that were chosen beside the type, `tools` the versions that made it. `source` is the variant
    that it was made from, where that is known.
    """

    variant: str
    files: tuple[File, ...]
    action: str
    source: str | None = None
    settings: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all shards together."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Card:
    """A model's files, what was measured of them, and where they come from; unknown is `None`.

    `source` is the repository of the model that they were made from, `commit` its commit, `repo` where they will be
    published. `remarks` say what had to be left out.
    """

    name: str
    files: tuple[CardFile, ...]
    comparison: Comparison
    source: str | None = None
    commit: str | None = None
    license: License | None = None
    repo: str | None = None
    architecture: str | None = None
    n_params: int | None = None
    context_length: int | None = None
    remarks: tuple[str, ...] = ()
