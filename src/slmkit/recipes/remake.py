"""Make an artifact again from its parents, as its manifest says that it was made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from slmkit._version import __version__
from slmkit.core.artifact import Artifact, File
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.units import size
from slmkit.errors import DiskFullError
from slmkit.formats.gguf.header import SHARD
from slmkit.recipes.session import Session
from slmkit.registry import atomic
from slmkit.registry.unchanged import unchanged

MADE_BY = ("convert", "quantize")
"""Actions that give the same bytes each time."""


def cannot(artifact: Artifact) -> str | None:
    """Why it cannot be made again, whatever is here; `None` when it can."""
    p = artifact.provenance
    if p.action not in MADE_BY or not artifact.owned:
        return f"not convert or quantize made it, but {p.action}"
    if p.parameters.get("converter", "slmkit") != "slmkit":
        return f"it was made by the converter {p.parameters['converter']!r}, which slmkit does not keep"
    if not p.parents or str(p.parameters.get("type")) not in QUANT_TYPES:
        return "its manifest does not say how it was made"
    return None


def other_tools(artifact: Artifact, build: Mapping[str, str]) -> tuple[str, ...]:
    """Each tool that made it and is another now: `engine: llama-cpp-python 0.3.35 then, ... now`.

    `build` is the present engine's; a converter needs none.
    """
    now = {"slmkit": __version__, **(build if artifact.provenance.action == "quantize" else {})}
    then = artifact.provenance.tools
    return tuple(
        f"{name}: {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
        for name in dict.fromkeys((*then, *now))
        if then.get(name) != now.get(name)
    )


def remake(
    artifact: Artifact, parents: Sequence[Artifact], folder: Path, session: Session, *, n_threads: int | None = None
) -> tuple[File, ...]:
    """Write the files of `artifact` to `folder` and return what they are, whether that is what they were or not.

    `parents` are all that it was made from, in the order of its manifest. Nothing is registered, and nothing decoded:
    the digest tells more.

    Raises `DiskFullError` before anything is written, `ChangedError`, and the errors of converter and engine.
    """
    _check_space(artifact, folder)
    target = folder / _whole(artifact.files[0].name)
    if artifact.provenance.action == "convert":
        return _convert(artifact, parents[0], target, session)
    return _quantize(artifact, parents, target, session, n_threads)


def _convert(artifact: Artifact, parent: Artifact, target: Path, session: Session) -> tuple[File, ...]:
    from slmkit.ops.convert.artifact import convert_artifact  # loads numpy

    p = artifact.provenance
    # The name and the commit are written into the file: those that it had, wherever the same checkpoint is found now.
    source = replace(parent, model=artifact.model, provenance=replace(parent.provenance, repo=p.repo, commit=p.commit))
    spec = ConvertSpec(pre=p.parameters.get("pre"), split_max_bytes=p.parameters.get("split_max_bytes"), verify=False)
    outtype = str(p.parameters["type"]).lower()
    made = convert_artifact(source, session.registry, session.progress, outtype=outtype, spec=spec, target=target)
    return made.files


def _quantize(
    artifact: Artifact, parents: Sequence[Artifact], target: Path, session: Session, n_threads: int | None
) -> tuple[File, ...]:
    from slmkit.backends.llamacpp.quantize import quantize
    from slmkit.host.probe import physical_cores

    parameters = artifact.provenance.parameters
    spec = QuantizeSpec.of(parameters)
    source, *others = parents
    with ExitStack() as stack:
        for parent in parents:
            stack.enter_context(unchanged(parent))
        if spec.imatrix is not None:
            (imatrix,) = others
            name = spec.imatrix.name
            link = stack.enter_context(atomic.scratch(session.registry.home)) / _file_name(name, imatrix)
            link.symlink_to(imatrix.path)
            spec = replace(spec, imatrix=ImatrixFile(name, link, imatrix.digest))
        quantize(
            source.path,
            target,
            QUANT_TYPES[str(parameters["type"])],
            n_threads=n_threads or physical_cores(),
            progress=session.progress,
            spec=spec,
        )
    return tuple(File(p.name, p.stat().st_size, atomic.sha256(p)) for p in sorted(target.parent.glob("*.gguf")))


def _file_name(name: str, imatrix: Artifact) -> str:
    """The name of the file that was read, which is written into what is made: the user's own may have had the bytes
    of one of the registry.
    """
    return imatrix.path.name if name == imatrix.variant else name


def _whole(name: str) -> str:
    """The name of the one file that shards would be without splitting."""
    shard = SHARD.fullmatch(name)
    return f"{shard['prefix']}.gguf" if shard else name


def _check_space(artifact: Artifact, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < artifact.size_bytes:
        raise DiskFullError(
            f"{artifact.ref} needs {size(artifact.size_bytes)} to be made again, {folder.parent} has {size(free)} free",
            hint="free some: `slmkit gc`, `slmkit list` shows sizes, `slmkit rm REF` deletes",
        )
