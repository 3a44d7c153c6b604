"""`adopt`: a local GGUF or checkpoint joins the registry by link; its files stay where they are."""

from __future__ import annotations

import re
from pathlib import Path

from slmkit._version import __version__
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import Progress
from slmkit.errors import FormatError, UsageError
from slmkit.formats.gguf.header import SHARD, read_header, shards
from slmkit.ops.describe import declared_type, gguf_facts, named_type, named_variant, now
from slmkit.registry.atomic import sha256
from slmkit.registry.store import Registry

LOCAL_ORG = "local"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._]+|\.{2,}")
_WEIGHTS = (".safetensors",)


def adopt(path: Path, registry: Registry, progress: Progress, model: str | None = None) -> Artifact:
    """Register `path` as `local/<its name>` (or `model`); hashes it, copies nothing.

    Raises `UsageError` for a path that is neither a GGUF nor a checkpoint, `GgufError` for a damaged GGUF.
    """
    artifact = describe(path, progress, model)
    with registry.locked(artifact.model, progress):
        registry.publish(artifact)
    return artifact


def describe(path: Path, progress: Progress, model: str | None = None, *, hashed: bool = True) -> Artifact:
    """The artifact that a local path is, without registering it.

    Without `hashed` it has no files and so no digest: enough for work that registers nothing.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise UsageError(f"no such file or folder: {path}", hint="for a model on the Hub type `org/name`")
    if path.is_dir():
        return _checkpoint(path, progress, model, hashed)
    if path.suffix.lower() == ".gguf":
        return _gguf(path, progress, model, hashed)
    raise UsageError(f"{path} is neither a .gguf file nor a checkpoint folder", hint="adopt a folder with config.json")


def _checkpoint(folder: Path, progress: Progress, model: str | None, hashed: bool) -> Artifact:
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is no checkpoint: it has no config.json", hint="give a .gguf file of it, if any")
    if not any(p.suffix in _WEIGHTS for p in folder.iterdir()):
        raise FormatError(
            f"{folder} has no .safetensors file", hint="pickled weights (.bin, .pth) are not read: unsafe"
        )
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return Artifact(
        model=model or local_model(folder.name),
        variant=None,
        root=folder,
        files=_hash(files, progress) if hashed else (),
        owned=False,
        provenance=Provenance("adopt", tools={"slmkit": __version__}),
        created=now(),
    )


def _gguf(path: Path, progress: Progress, model: str | None, hashed: bool) -> Artifact:
    facts = gguf_facts(path)
    name, variant = _stem(path), variant_of(path)
    if named := named_variant(name):
        variant = "-".join(part for part in named if part)
        name = name[: -len(variant) - 1]
    return Artifact(
        model=model or local_model(name),
        variant=variant,
        root=path.parent,
        files=_hash(shards(path), progress) if hashed else (),
        owned=False,
        provenance=Provenance("adopt", tools={"slmkit": __version__}),
        created=now(),
        facts=facts,
    )


def local_model(name: str) -> str:
    """`local/<name>`, with whatever a reference cannot hold replaced."""
    cleaned = _NOT_IN_A_NAME.sub("-", name).strip("-.")[:96] or "model"
    return f"{LOCAL_ORG}/{cleaned}"


def variant_of(path: Path) -> str:
    """The quant type in a GGUF's name, or else the one its header declares, or its most common one."""
    if named := named_type(_stem(path)):
        return named
    header = read_header(path)
    return declared_type(header.metadata) or next(iter(header.params_by_type), "F32")


def _stem(path: Path) -> str:
    """The name without suffix, and without the number of a shard."""
    match = SHARD.fullmatch(path.name)
    return match["prefix"] if match else path.stem


def _hash(paths: list[Path], progress: Progress) -> tuple[File, ...]:
    files = []
    with progress.task("hash", sum(p.stat().st_size for p in paths), "bytes") as task:
        for path in paths:
            size_bytes = path.stat().st_size
            files.append(File(path.name, size_bytes, sha256(path)))
            task.advance(size_bytes)
    return tuple(files)
