"""A GGUF on the Hub of which no weight is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.progress import Progress
from slmkit.core.quant import canonical
from slmkit.core.refs import ModelRef
from slmkit.errors import GgufError, HubFileNotFoundError, OfflineError
from slmkit.formats.gguf.model import open_model
from slmkit.hub import select
from slmkit.hub.client import HubClient
from slmkit.hub.hollows import fetch_hollows

_HINT = "the bytes are those that the Hub has: take another quant, or tell the owner of the repository"


@dataclass(frozen=True)
class RemoteGguf:
    """`path` is its first file: header and size are real, the weights are a hole."""

    ref: str
    variant: str
    path: Path


@contextmanager
def open_remote(
    ref: ModelRef,
    *,
    verb: str,
    wanted: tuple[str, ...] = (),
    otherwise: HubFileNotFoundError | None = None,
    offline: bool,
    progress: Progress,
) -> Iterator[RemoteGguf]:
    """The GGUF that a reference to the Hub names, without a variant its most exact float one, or the only one.

    It is there as long as the context lasts. `verb` is the command that asks, for hints. `wanted` are the ends of the
    names of small tensors that are read, too. `otherwise` is raised for a repository without any GGUF.

    Raises the `HubError`s, and `GgufError`, naming `org/name/file`.
    """
    with tempfile.TemporaryDirectory(prefix="slmkit-") as folder, HubClient(offline=offline, progress=progress) as hub:
        snapshot = hub.snapshot(ref.name, ref.revision)
        if otherwise and not select.ggufs(snapshot.paths):
            raise otherwise
        gguf = _choose(ref, snapshot.paths, verb, offline=hub.offline)
        variant = canonical(gguf.label)
        files = {file.path: file for file in snapshot.files}
        try:
            with progress.task(f"header of {ref.model}:{variant}", None, "steps"):
                path = fetch_hollows(hub, snapshot, [files[path] for path in gguf.paths], Path(folder), wanted)
            open_model(path)  # what is cut short, or of several models
            yield RemoteGguf(f"{ref.model}:{variant}", variant, path)
        except GgufError as error:
            raise type(error)(error.message.replace(folder, ref.model), hint=_hint(error)) from error


def _choose(ref: ModelRef, paths: tuple[str, ...], verb: str, *, offline: bool) -> select.Gguf:
    try:
        if ref.variant:
            return select.gguf_files(ref.model, paths, ref.variant, verb=verb)
        return select.gguf_alone(ref.model, paths, verb=verb)
    except HubFileNotFoundError as error:
        if not offline:
            raise
        raise OfflineError(
            f"{ref} is not complete in the cache, and offline mode is on",
            hint="run the same command once without HF_HUB_OFFLINE",
        ) from error


def _hint(error: GgufError) -> str | None:
    return _HINT if type(error) is GgufError else error.hint
