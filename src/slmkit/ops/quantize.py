"""`quantize`: one float GGUF becomes smaller ones."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp import engine
from slmkit.backends.llamacpp.quantize import quantize as quantize_file
from slmkit.core import units
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.errors import DiskFullError, EngineError, UsageError
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.host.probe import physical_cores
from slmkit.ops.describe import gguf_facts, now
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry
from slmkit.registry.unchanged import unchanged


@dataclass(frozen=True)
class QuantizeReport:
    """One finished type. `fresh` is false when it was there already."""

    source: Artifact
    artifact: Artifact
    fresh: bool

    @property
    def reduction(self) -> float:
        """The share of the source's size that was saved."""
        return 1 - self.artifact.size_bytes / self.source.size_bytes


def quantize(
    source: Artifact,
    quant: QuantType,
    registry: Registry,
    progress: Progress,
    *,
    force: bool = False,
    n_threads: int | None = None,
) -> QuantizeReport:
    """Make `quant` of a float GGUF and register it; the file appears only after it was loaded and has decoded tokens.

    Raises `UsageError` for a source or type that cannot be, `DiskFullError` before or while writing, `LockedError`, and
    the engine's errors. Whatever goes wrong, nothing half made is registered.
    """
    _check(source, quant)
    if not force and (found := registry.find_current(source, quant.name)):
        return QuantizeReport(source, found, fresh=False)
    target = paths.gguf_path(registry.home, source.model, quant.name)
    threads = n_threads or physical_cores()
    with registry.locked(source.model):
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(source, quant, registry)
        with atomic.staged(target) as folder:
            temporary = folder / target.name
            with unchanged(source):
                result = quantize_file(source.path, temporary, quant, n_threads=threads, progress=progress)
            facts = gguf_facts(temporary)
            with progress.task(f"check {quant}", None, "steps"):
                _decode(temporary, quant)
            artifact = Artifact(
                model=source.model,
                variant=quant.name,
                root=target.parent,
                files=(File(target.name, temporary.stat().st_size, atomic.sha256(temporary)),),
                owned=True,
                provenance=Provenance(
                    "quantize",
                    repo=source.provenance.repo,
                    commit=source.provenance.commit,
                    parents=(source.digest,),
                    parameters={"type": quant.name, "source": source.ref, "n_threads": threads},
                    tools={"slmkit": __version__, **result.build},
                    notes=source.provenance.notes,
                ),
                created=now(),
                facts={**facts, "n_fallback": result.n_fallback},
            )
            registry.publish(artifact, folder)
    return QuantizeReport(source, artifact, fresh=True)


def _check(source: Artifact, quant: QuantType) -> None:
    if source.is_checkpoint or source.variant not in ("F16", "BF16", "F32"):
        raise UsageError(
            f"{source.ref} is quantized already: quantizing it again would add its errors to the new ones",
            hint=_float_hint(source, quant),
        )
    if quant.name == source.variant:
        raise UsageError(f"{source.ref} has the type {quant} already")


def _float_hint(source: Artifact, quant: QuantType) -> str:
    if source.provenance.action in ("convert", "quantize"):
        return f"quantize from the model's float file: `slmkit quantize {source.model} -t {quant}`"
    return "take the checkpoint that it was made from, or a float GGUF of it (F16, BF16, F32)"


def _check_space(source: Artifact, quant: QuantType, registry: Registry) -> None:
    """All weights in the base type are what the file takes at least: some tensors get a larger type."""
    need = int(source.facts["n_params"] * GGML_TYPES_BY_NAME[quant.base].bpw / 8)
    free = shutil.disk_usage(registry.home).free
    if free < need:
        raise DiskFullError(
            f"{quant} of {source.ref} needs at least {units.size(need)}; {registry.home} has {units.size(free)} free",
            hint="free some: `slmkit list` shows sizes, `slmkit rm REF` deletes",
        )


def _decode(path: Path, quant: QuantType) -> None:
    try:
        engine.smoke(path)
    except EngineError as error:
        raise type(error)(
            f"the {quant} file was made but does not work, and was deleted: {error.message}",
            hint=error.hint,
            log=error.log,
        ) from error
