"""One type of one model: the engine makes it, it is hashed and tried, and only then it is there."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp.child import Children
from slmkit.backends.llamacpp.quantize import QuantizeResult
from slmkit.backends.llamacpp.quantize import quantize as quantize_file
from slmkit.core.artifact import JSON, Artifact, File, Provenance
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.formats.gguf.header import read_header
from slmkit.ops.describe import gguf_facts, now
from slmkit.ops.quantize.label import label_facts
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry
from slmkit.registry.unchanged import unchanged


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
    with atomic.staged(target) as folder, ThreadPoolExecutor(2, thread_name_prefix="check") as threads:
        checking: list[Future[File]] = []

        def check() -> None:
            """Hash the files and bring them to the disk, while the engine tries them."""
            for path in sorted(folder.iterdir()):
                threads.submit(atomic.flush, path)  # for a start: publishing makes sure of it
                checking.append(threads.submit(_hashed, path, progress, children))

        with unchanged(source):
            result = quantize_file(
                source.path,
                folder / target.name,
                quant,
                n_threads=n_threads,
                progress=progress,
                spec=order.spec,
                when_written=check,
                children=children,
            )
        made = sorted(folder.iterdir())
        facts = {**gguf_facts(made[0]), **_label(quant, made, result), "elapsed_s": round(result.elapsed_ns / 1e9, 3)}
        if order.spec.mix:
            facts |= order.spec.mix.facts
        if order.spec.allow_requantize:
            facts["requantized_from"] = source.variant
        artifact = Artifact(
            model=source.model,
            variant=order.variant,
            root=target.parent,
            files=tuple(done.result() for done in checking),
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
                    **(order.spec.mix.parameters if order.spec.mix else {}),
                },
                tools={"slmkit": __version__, **result.build},
                notes=source.provenance.notes,
            ),
            created=now(),
            facts=facts,
        )
        registry.publish(artifact, folder)
    return artifact


def _label(quant: QuantType, made: list[Path], result: QuantizeResult) -> dict[str, JSON]:
    return label_facts(quant, [t for path in made for t in read_header(path).tensors], result.fallbacks)


def _hashed(path: Path, progress: Progress, children: Children) -> File:
    size_bytes = path.stat().st_size
    with progress.task(f"check {path.name}", size_bytes, "bytes") as task:

        def advance(n_bytes: int) -> None:
            children.check()
            task.advance(n_bytes)

        return File(path.name, size_bytes, atomic.sha256(path, advance))
