"""One type of one model: the engine makes it, it is hashed and tried, and only then it is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp import engine
from slmkit.backends.llamacpp.child import Children
from slmkit.backends.llamacpp.quantize import QuantizeResult
from slmkit.backends.llamacpp.quantize import quantize as quantize_file
from slmkit.core.artifact import JSON, Artifact, File, Provenance
from slmkit.core.progress import Progress, Task
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import EngineError
from slmkit.formats.gguf.header import read_header
from slmkit.ops.describe import gguf_facts, now
from slmkit.ops.quantize import source as source_files
from slmkit.ops.quantize.label import label_facts
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry


@dataclass(frozen=True)
class Order:
    """One file to be made, called `variant`."""

    source: Artifact
    quant: QuantType
    spec: QuantizeSpec
    variant: str


def make(order: Order, n_threads: int, registry: Registry, progress: Progress, children: Children) -> Artifact:
    """Make and register it; the caller holds the model's lock.

    Raises the engine's errors, `DiskFullError`, `ChangedError`. Whatever goes wrong, nothing half made is left.
    """
    source, quant = order.source, order.quant
    target = paths.gguf_path(registry.home, source.model, order.variant)
    before = source_files.state(source)
    with atomic.staged(target) as folder:
        result = quantize_file(
            source.path,
            folder / target.name,
            quant,
            n_threads=n_threads,
            progress=progress,
            spec=order.spec,
            children=children,
        )
        source_files.check_unchanged(source, before)
        made = sorted(folder.iterdir())
        facts = {**gguf_facts(made[0]), **_label(quant, made, result)}
        files = _checked(made, quant, progress, children)
        # an old manifest must not describe the new file for even a moment
        paths.manifest_path(registry.home, source.model, order.variant).unlink(missing_ok=True)
    if order.spec.allow_requantize:
        facts["requantized_from"] = source.variant
    artifact = Artifact(
        model=source.model,
        variant=order.variant,
        root=target.parent,
        files=files,
        owned=True,
        provenance=Provenance(
            "quantize",
            repo=source.provenance.repo,
            commit=source.provenance.commit,
            parents=(source.digest, *((order.spec.imatrix.digest,) if order.spec.imatrix else ())),
            parameters={
                "type": quant.name,
                "source": source.ref,
                "n_threads": n_threads,
                **order.spec.parameters,
            },
            tools={"slmkit": __version__, **result.build},
            notes=source.provenance.notes,
        ),
        created=now(),
        facts=facts,
    )
    registry.publish(artifact)
    return artifact


def _label(quant: QuantType, made: list[Path], result: QuantizeResult) -> dict[str, JSON]:
    return label_facts(quant, [t for path in made for t in read_header(path).tensors], result.fallbacks)


def _checked(made: list[Path], quant: QuantType, progress: Progress, children: Children) -> tuple[File, ...]:
    """The files, hashed and on the disk, after the engine has decoded tokens with them: all at the same time."""
    size_bytes = sum(path.stat().st_size for path in made)
    with (
        progress.task(f"check {quant}", size_bytes, "bytes") as task,
        ThreadPoolExecutor(2, thread_name_prefix="check") as threads,
    ):
        hashing = threads.submit(_hashed, made, task, children)
        flushing = [threads.submit(atomic.flush, path) for path in made]
        _decode(made[0], quant, children)
        for done in flushing:
            done.result()
        return hashing.result()


def _hashed(made: list[Path], task: Task, children: Children) -> tuple[File, ...]:
    def advance(n_bytes: int) -> None:
        children.check()
        task.advance(n_bytes)

    return tuple(File(path.name, path.stat().st_size, atomic.sha256(path, advance)) for path in made)


def _decode(path: Path, quant: QuantType, children: Children) -> None:
    try:
        engine.smoke(path, children=children)
    except EngineError as error:
        raise type(error)(
            f"the {quant} file was made but does not work, and was deleted: {error.message}",
            hint=error.hint,
            log=error.log,
        ) from error
