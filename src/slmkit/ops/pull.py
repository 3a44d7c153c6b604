"""Bring a model from the Hub into the Hugging Face cache, and make it known to the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from slmkit._version import __version__
from slmkit.core.artifact import Artifact, Provenance
from slmkit.core.progress import SILENT, Progress
from slmkit.core.quant import canonical
from slmkit.core.refs import ModelRef
from slmkit.core.units import size
from slmkit.errors import (
    GgufError,
    GgufTypeError,
    HubFileNotFoundError,
    OfflineError,
    UsageError,
    WrongBytesError,
)
from slmkit.formats.gguf.types import FOREIGN_TYPES
from slmkit.hub import select
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.download import download
from slmkit.ops.describe import gguf_facts, now
from slmkit.registry.store import Registry, is_whole

CONFIG = "config.json"


def pull(
    ref: ModelRef,
    registry: Registry,
    *,
    revision: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    offline: bool = False,
    progress: Progress = SILENT,
    client: HubClient | None = None,
    inspect: Callable[[Path], None] | None = None,
) -> Artifact:
    """What `ref` names on the Hub, complete and checked: a checkpoint, or with a variant the GGUF in that type.

    `revision` goes with a reference that has none. `include` adds files by glob, `exclude` drops some. Nothing is
    downloaded that is here already; an interrupted pull goes on where it stopped. `client` is for the library's
    users who need another endpoint or cache than the environment's. `inspect` sees a checkpoint's folder when only its
    config.json is there, and saves the rest of the download by raising.

    Raises the `HubError`s, `DiskFullError`, and `UsageError` for a reference that is not the Hub's.
    """
    ref = _settled(ref, revision)
    hub = client or HubClient(offline=offline, progress=progress)
    with hub:
        if hub.offline:
            known = registry.find(ref.model, ref.variant)
            if known and is_whole(known):
                progress.say(f"{known.ref} is here already")
                return known
        snapshot = hub.snapshot(ref.name, ref.revision)
        variant, paths = _choose(ref, snapshot, include, exclude, offline=hub.offline)
        _check_runs(ref.name, variant)
        known = registry.find(ref.model, variant)
        if known and is_whole(known) and (known.owned or _same(known, snapshot, paths)):
            at = "made here" if known.owned else f"at commit {snapshot.commit[:8]}"
            progress.say(f"{known.ref} is here already, {at}: nothing to download")
            return known
        files = {file.path: file for file in snapshot.files}
        if inspect and CONFIG in paths:
            inspect(download(hub, snapshot, [files[CONFIG]]).root)
        got = download(hub, snapshot, [files[path] for path in paths], progress=progress)
    artifact = Artifact(
        model=ref.model,
        variant=variant,
        root=got.root,
        files=got.files,
        owned=False,
        provenance=Provenance(
            action="pull",
            repo=snapshot.repo,
            commit=snapshot.commit,
            parameters={"revision": snapshot.revision, "include": list(include), "exclude": list(exclude)},
            tools={"slmkit": __version__, "huggingface_hub": metadata.version("huggingface_hub")},
        ),
        created=now(),
        facts={} if variant is None else _facts(got.root / got.files[0].name, snapshot.repo),
    )
    with registry.locked(artifact.model, progress):
        registry.publish(artifact)
    noun = "file" if len(artifact.files) == 1 else "files"
    progress.say(f"{artifact.ref}: {len(artifact.files)} {noun}, {size(artifact.size_bytes)}")
    return artifact


def restore(
    artifact: Artifact,
    registry: Registry,
    *,
    offline: bool = False,
    progress: Progress = SILENT,
    client: HubClient | None = None,
) -> Artifact:
    """Download again the files of an artifact that was pulled and is no longer in the cache: the same commit's.

    Raises as `pull` does, and `WrongBytesError` when the repository has not got these bytes any more.
    """
    p = artifact.provenance
    hub = client or HubClient(offline=offline, progress=progress)
    with hub:
        snapshot = hub.snapshot(p.repo or artifact.repo_id, p.commit)
        files = {file.path: file for file in snapshot.files}
        missing = [file.name for file in artifact.files if file.name not in files]
        if missing:
            raise HubFileNotFoundError(f"{snapshot.repo} at {snapshot.commit[:12]} has no {missing[0]}")
        got = download(hub, snapshot, [files[file.name] for file in artifact.files], progress=progress)
    restored = replace(artifact, root=got.root, files=got.files, created=now())
    if restored.digest != artifact.digest:
        raise WrongBytesError(
            f"{snapshot.repo} at {snapshot.commit[:12]} has other bytes than when {artifact.ref} was pulled",
            hint=f"pull it anew: `slmkit pull {artifact.ref}`",
        )
    with registry.locked(restored.model, progress):
        registry.publish(restored)
    return restored


def _facts(path: Path, repo: str) -> dict[str, Any]:
    try:
        return gguf_facts(path)
    except GgufTypeError as error:
        raise GgufTypeError(f"{repo}: {error.message}", hint=error.hint) from error
    except GgufError as error:
        hint = "the bytes are those that the Hub has: take another quant, or tell the owner of the repository"
        raise GgufError(f"{repo}: {error.message}", hint=hint) from error


def _check_runs(repo: str, variant: str | None) -> None:
    """Raise `GgufTypeError` for a type that llama.cpp does not load, before a gigabyte is downloaded."""
    for what, hint in FOREIGN_TYPES.values():
        if variant is not None and variant.upper() == what.partition(",")[0].upper():
            raise GgufTypeError(f"{repo}: the type is {what}", hint=hint)


def _settled(ref: ModelRef, revision: str | None) -> ModelRef:
    if ref.kind != "hub":
        raise UsageError(f"{ref} is not on the Hub", hint="a name on the Hub has the form `org/name`")
    if revision is None or revision == ref.revision:
        return ref
    if ref.revision is not None:
        raise UsageError(f"two revisions: {ref.revision} in the reference, {revision} beside it", hint="give one")
    return ModelRef.parse(str(replace(ref, revision=revision)))


def _choose(
    ref: ModelRef, snapshot: RepoSnapshot, include: Sequence[str], exclude: Sequence[str], *, offline: bool
) -> tuple[str | None, tuple[str, ...]]:
    try:
        if ref.variant is None:
            return None, select.checkpoint_files(ref.name, snapshot.paths, include=include, exclude=exclude)
        gguf = select.gguf_files(ref.name, snapshot.paths, ref.variant, include=include, exclude=exclude)
        return canonical(gguf.label), gguf.paths
    except HubFileNotFoundError as error:
        if not offline:
            raise
        raise OfflineError(
            f"{ref} is not complete in the cache, and offline mode is on",
            hint=f"without `--offline` and HF_HUB_OFFLINE: `slmkit pull {ref}`",
        ) from error


def _same(known: Artifact, snapshot: RepoSnapshot, paths: Sequence[str]) -> bool:
    return known.provenance.commit == snapshot.commit and {file.name for file in known.files} == set(paths)
