"""Types of one model, made together: they are written, hashed and tried, and only then they are there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp.child import Children
from slmkit.backends.llamacpp.quantize import Order as Wanted
from slmkit.backends.llamacpp.quantize import QuantizeResult, quantize_together
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


def make(
    orders: Sequence[Order], n_threads: int, registry: Registry, progress: Progress, children: Children
) -> list[Artifact]:
    """Make and register all `orders`, which are of one source; the caller holds the model's lock.

    Raises the engine's errors, `DiskFullError`, `ChangedError`: then none is registered, and nothing half made is left.
    """
    source = orders[0].source
    with ExitStack() as stack:
        targets = [paths.gguf_path(registry.home, source.model, order.variant) for order in orders]
        folders = [stack.enter_context(atomic.staged(target)) for target in targets]
        threads = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="check"))
        checking: list[list[Future[File]]] = []

        def check() -> None:
            """Hash the files and bring them to the disk, while the engine tries them."""
            for folder in folders:
                files = sorted(folder.iterdir())
                for path in files:
                    threads.submit(atomic.flush, path)  # for a start: publishing makes sure of it
                checking.append([threads.submit(_hashed, path, progress, children) for path in files])

        with unchanged(source):
            results = quantize_together(
                source.path,
                [
                    Wanted(folder / target.name, order.quant, order.spec)
                    for folder, target, order in zip(folders, targets, orders, strict=True)
                ],
                n_threads=n_threads,
                progress=progress,
                when_written=check,
                children=children,
            )
        made = []
        for order, folder, result, files in zip(orders, folders, results, checking, strict=True):
            artifact = _artifact(order, folder, result, tuple(done.result() for done in files), n_threads, registry)
            registry.publish(artifact, folder)
            made.append(artifact)
    return made


def _artifact(
    order: Order, folder: Path, result: QuantizeResult, files: tuple[File, ...], n_threads: int, registry: Registry
) -> Artifact:
    source, quant, spec = order.source, order.quant, order.spec
    written = sorted(folder.iterdir())
    facts = {**gguf_facts(written[0]), **_label(quant, written, result), "elapsed_s": round(result.elapsed_ns / 1e9, 3)}
    if spec.mix:
        facts |= spec.mix.facts
    if spec.allow_requantize:
        facts["requantized_from"] = source.variant
    return Artifact(
        model=source.model,
        variant=order.variant,
        root=paths.gguf_path(registry.home, source.model, order.variant).parent,
        files=files,
        owned=True,
        provenance=Provenance(
            "quantize",
            repo=source.provenance.repo,
            commit=source.provenance.commit,
            parents=(source.digest, *((spec.imatrix.digest,) if spec.imatrix else ())),
            parameters={
                "type": quant.name,
                "source": source.ref,
                "n_threads": n_threads,
                **spec.parameters,
                **(spec.mix.parameters if spec.mix else {}),
            },
            tools={"slmkit": __version__, **result.build},
            notes=source.provenance.notes,
        ),
        created=now(),
        facts=facts,
    )


def _label(quant: QuantType, made: list[Path], result: QuantizeResult) -> dict[str, JSON]:
    return label_facts(quant, [t for path in made for t in read_header(path).tensors], result.fallbacks)


def _hashed(path: Path, progress: Progress, children: Children) -> File:
    size_bytes = path.stat().st_size
    with progress.task(f"check {path.name}", size_bytes, "bytes") as task:

        def advance(n_bytes: int) -> None:
            children.check()
            task.advance(n_bytes)

        return File(path.name, size_bytes, atomic.sha256(path, advance))
