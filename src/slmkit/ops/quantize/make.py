"""Types of one model, made together: they are written, hashed and tried, and only then they are there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp.child import Children
from slmkit.backends.llamacpp.quantize import Order as Wanted
from slmkit.backends.llamacpp.quantize import QuantizeResult, quantize_together
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.formats.gguf.model import GgufModel, open_model
from slmkit.ops.describe import model_facts, now
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
        checking: list[Future[_Checked]] = []

        def check() -> None:
            """Hash the files and bring them to the disk, while the engine tries them."""
            threads.submit(_flush, folders)
            checking.extend(threads.submit(_checked, folder, progress, children) for folder in folders)

        with unchanged(source, next((order.spec.imatrix for order in orders if order.spec.imatrix), None)):
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
        for order, folder, result, checked in zip(orders, folders, results, checking, strict=True):
            artifact = _artifact(order, checked.result(), result, n_threads, registry)
            registry.publish(artifact, folder)
            made.append(artifact)
    return made


def _flush(folders: Sequence[Path]) -> None:
    """For a start: publishing makes sure of it, and tells what goes wrong."""
    with suppress(OSError):
        for folder in folders:
            for path in folder.iterdir():
                atomic.flush(path)


@dataclass(frozen=True)
class _Checked:
    """What was made for one order."""

    files: tuple[File, ...]
    model: GgufModel


def _checked(folder: Path, progress: Progress, children: Children) -> _Checked:
    written = sorted(folder.iterdir())
    return _Checked(tuple(_hashed(path, progress, children) for path in written), open_model(written[0]))


def _hashed(path: Path, progress: Progress, children: Children) -> File:
    size_bytes = path.stat().st_size
    with progress.task(f"check {path.name}", size_bytes, "bytes") as task:

        def advance(n_bytes: int) -> None:
            children.check()
            task.advance(n_bytes)

        return File(path.name, size_bytes, atomic.sha256(path, advance))


def _artifact(order: Order, made: _Checked, result: QuantizeResult, n_threads: int, registry: Registry) -> Artifact:
    source, quant, spec = order.source, order.quant, order.spec
    facts = {
        **model_facts(made.model),
        **label_facts(quant, [tensor.info for tensor in made.model.tensors], result.fallbacks),
        "elapsed_s": round(result.elapsed_ns / 1e9, 3),
    }
    if spec.mix:
        facts |= spec.mix.facts
    if spec.allow_requantize:
        facts["requantized_from"] = source.variant
    return Artifact(
        model=source.model,
        variant=order.variant,
        root=paths.gguf_path(registry.home, source.model, order.variant).parent,
        files=made.files,
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
