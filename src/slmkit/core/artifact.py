"""Files that belong together, what they are, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmkit.errors import UsageError

JSON = Any
"""A JSON value: what a manifest can hold."""


@dataclass(frozen=True)
class File:
    """One file of an artifact: `name` is its path below the artifact's root, with `/`."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """How an artifact came to be.

    `action` is the verb that made it (`pull`, `adopt`, `export`, `convert`, `quantize`), `parents` the digests of
    what it was made from, `parameters` everything that was chosen, `tools` the versions that did it.
    """

    action: str
    repo: str | None = None
    commit: str | None = None
    parents: tuple[str, ...] = ()
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_brought(self) -> bool:
        """Whether others made it, so that nothing here can make it again."""
        return self.action in ("adopt", "pull")


@dataclass(frozen=True)
class Artifact:
    """A checkpoint (`variant` is `None`) or a GGUF in one quant type, complete on disk.

    `model` is `org/name` or `org/name@revision`. `owned` files were made here and go when the artifact is removed;
    the others stay where they are (the Hugging Face cache, the user's folders). `facts` are read off the finished
    files, so that listing needs not open them: `architecture`, `n_params`, `bpw`, `n_tensors`, `n_fallback`; or are of
    their making: `elapsed_s`. `typed` is the path by which the user named a file that is not registered.
    """

    model: str
    variant: str | None
    root: Path
    files: tuple[File, ...]
    owned: bool
    provenance: Provenance
    created: str
    facts: Mapping[str, JSON] = field(default_factory=dict)
    typed: str | None = None

    @property
    def ref(self) -> str:
        """What to type to name it."""
        if self.typed:
            return self.typed
        return self.model if self.variant is None else f"{self.model}:{self.variant}"

    @property
    def repo_id(self) -> str:
        """`org/name` without a revision."""
        return self.model.partition("@")[0]

    @property
    def is_checkpoint(self) -> bool:
        """Safetensors and their like, rather than GGUF."""
        return self.variant is None

    def require_gguf(self) -> None:
        """Raise `UsageError` for a checkpoint."""
        if self.is_checkpoint:
            raise UsageError(f"{self.ref} is a checkpoint: a GGUF is wanted", hint=f"`slmkit convert {self.ref}`")

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(f.size_bytes for f in self.files)

    @property
    def path(self) -> Path:
        """The GGUF (its first shard), or the checkpoint's folder."""
        return self.root if self.is_checkpoint else self.root / self.files[0].name

    @property
    def digest(self) -> str:
        """`sha256:` and the digest of the one file, or of the list of digests and names of several."""
        if len(self.files) == 1:
            return f"sha256:{self.files[0].sha256}"
        lines = "".join(f"{f.sha256}  {f.name}\n" for f in sorted(self.files, key=lambda f: f.name))
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
