"""Several types of one model: which are made together, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from slmkit.backends.llamacpp.child import Children, require_engine
from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec, variant_name
from slmkit.errors import DiskFullError, EngineError, EngineMissingError, RegistryError, SlmkitError, UsageError
from slmkit.host.probe import physical_cores
from slmkit.ops.quantize import importance, room
from slmkit.ops.quantize import source as source_files
from slmkit.ops.quantize.make import Order, make
from slmkit.ops.quantize.report import QuantizeReport
from slmkit.ops.quantize.strict import refusals
from slmkit.registry.lineage import state
from slmkit.registry.store import Registry, is_whole

_DEFAULT = QuantizeSpec()
_TURN_S = 0.2
_ROUNDED = frozenset({"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
_AT_A_TIME = 2
"""Batches: while the files of one are hashed, flushed and tried, the next is made."""


def quantize(
    source: Artifact,
    types: Sequence[QuantType],
    registry: Registry,
    progress: Progress,
    *,
    spec: QuantizeSpec = _DEFAULT,
    name: str | None = None,
    strict_share: float | None = None,
    force: bool = False,
    may_replace: bool = False,
    n_threads: int | None = None,
    on_failure: Callable[[QuantType, SlmkitError], None] | None = None,
) -> Generator[QuantizeReport]:
    """Make each type of a GGUF and register it; yields them in the order of `types`. A file appears only after it was
    loaded and has decoded tokens.

    What is there already, made from these bytes and as `spec` says, is not made again without `force`. The variant is
    `core.quantize.variant_name`; one of that name that was made in another way is in the way without `force` or
    `may_replace`, one that was not made here without `force` (`RegistryError`). A type of which more than
    `strict_share` of the parameters would fall back to another is refused by `VerdictError`. With `on_failure` a type
    that cannot be made is told there, and the others still are. Another process that works on the model is waited for.

    Raises `UsageError` for a source, types or a spec that cannot be, `DiskFullError` before or while writing,
    `ChangedError`, and the engine's errors. Whatever goes wrong, nothing half made is registered.
    """
    types = tuple(dict.fromkeys(types))
    if not types:
        return
    spec = source_files.fitting(spec, source)
    tensors = source_files.tensors_of(source)
    source_files.check(source, types, spec, tensors)
    orders = _orders(source, types, spec, name)
    there = {} if force else _there(orders, registry)
    if len(there) == len(orders) and strict_share is None:  # a promise is looked at even when there is nothing to do
        yield from (QuantizeReport(quant, source, there[quant], fresh=False) for quant in types)
        return
    require_engine()
    with registry.locked(source.model, progress):
        importance.check(source.ref, spec, tensors, progress)
        there = {} if force else _there(orders, registry)  # who had the lock may have made them
        todo = {quant: order for quant, order in orders.items() if quant not in there}
        refused = _strangers(todo, registry, force, may_replace)
        refused |= importance.lacking(source, [quant for quant in todo if quant not in refused], spec, tensors)
        if strict_share is not None:
            refused |= refusals(source, types, spec, tensors, strict_share)
        todo = {quant: order for quant, order in todo.items() if quant not in refused}
        refused |= room.too_large(todo, registry.home)
        todo = {quant: order for quant, order in todo.items() if quant not in refused}
        n_threads = n_threads or physical_cores()
        children = Children()
        workers = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="quantize")
        try:
            making: dict[QuantType, Future[Mapping[QuantType, Artifact | SlmkitError]]] = {}
            for batch in _batches(todo):
                making |= dict.fromkeys(batch, workers.submit(_made, batch, n_threads, registry, progress, children))
            for quant in types:
                try:
                    if quant in refused:
                        raise refused[quant]
                    artifact = there[quant] if quant in there else _result(making[quant], quant)
                except EngineMissingError:
                    raise
                except SlmkitError as error:
                    if on_failure is None:
                        raise
                    on_failure(quant, error)
                else:
                    yield QuantizeReport(quant, source, artifact, fresh=quant in making)
        finally:  # after the last one, and when it is interrupted or nobody wants the rest
            children.kill()
            workers.shutdown(cancel_futures=True)


def made_already(
    source: Artifact, types: Sequence[QuantType], registry: Registry, *, spec: QuantizeSpec, name: str | None
) -> list[QuantizeReport]:
    """All of `types`, when `quantize` would make none of them; else none. The files of `source` may be gone."""
    orders = _orders(source, types, source_files.fitting(spec, source), name)
    there = _there(orders, registry)
    if len(there) < len(orders):
        return []
    return [QuantizeReport(quant, source, there[quant], fresh=False) for quant in orders]


def _orders(
    source: Artifact, types: Sequence[QuantType], spec: QuantizeSpec, name: str | None
) -> dict[QuantType, Order]:
    specs = {q: replace(spec, imatrix=None) if q.is_float else spec for q in types}  # floats are not weighed
    return {q: Order(source, q, s, variant_name(q, s, name=name, source=source.variant)) for q, s in specs.items()}


def _batches(orders: Mapping[QuantType, Order]) -> Iterator[Mapping[QuantType, Order]]:
    """Those that are made together: types of plain rounding, with which reading the source is a good part of the work.
    Of the others each is one by itself, so that what an interrupted call has made is kept.
    """
    plain = {quant: order for quant, order in orders.items() if quant.base in _ROUNDED}
    for quant, order in orders.items():
        if quant not in plain:
            yield {quant: order}
        elif quant == next(iter(plain)):
            yield plain


def _made(
    batch: Mapping[QuantType, Order], n_threads: int, registry: Registry, progress: Progress, children: Children
) -> Mapping[QuantType, Artifact | SlmkitError]:
    """All of a batch; where that fails, each alone, so that the others do not suffer for one."""
    try:
        return dict(zip(batch, make(list(batch.values()), n_threads, registry, progress, children), strict=True))
    except (EngineError, DiskFullError) as error:
        if isinstance(error, EngineMissingError) or children.killed:
            return dict.fromkeys(batch, error)
        if len(batch) == 1:
            (only,) = batch.items()
            return {only[0]: room.full(*only, registry.home) if isinstance(error, DiskFullError) else error}
    except SlmkitError as error:
        return dict.fromkeys(batch, error)
    return {q: _made({q: order}, n_threads, registry, progress, children)[q] for q, order in batch.items()}


def _result(future: Future[Mapping[QuantType, Artifact | SlmkitError]], quant: QuantType) -> Artifact:
    """Its result, waited for in short turns: a Ctrl-C that comes as one begins is noticed at its end only."""
    while True:
        try:
            found = future.result(timeout=_TURN_S)[quant]
        except TimeoutError:
            continue
        if isinstance(found, SlmkitError):
            raise found
        return found


def _there(orders: Mapping[QuantType, Order], registry: Registry) -> dict[QuantType, Artifact]:
    """What need not be made: current, and made as asked."""
    found = {quant: registry.find_current(order.source, order.variant) for quant, order in orders.items()}
    return {quant: made for quant, made in found.items() if made and is_as_asked(made, orders[quant].spec)}


def is_as_asked(made: Artifact, spec: QuantizeSpec) -> bool:
    """Whether a quant was made as `spec` says, with the very importance matrix that is there now."""
    imatrix = spec.imatrix
    return spec.is_met_by(made) and (imatrix is None or imatrix.digest in made.provenance.parents)


def brought(made: Artifact | None) -> RegistryError | None:
    """The error for a file that was not made here and would be replaced; none for others, and when it is gone."""
    if made is None or not made.provenance.is_brought or state(made) == "gone":
        return None
    return RegistryError(
        f"{made.ref} is there already and was not made here: {made.path}",
        hint=f"replace it: `--force`, or forget it first: `slmkit rm {made.ref}`; make another one beside it: "
        "`--name LABEL`",
    )


def _strangers(
    orders: Mapping[QuantType, Order], registry: Registry, force: bool, may_replace: bool
) -> dict[QuantType, SlmkitError]:
    """Where another file has the name already: the source itself, one that was made in another way, or elsewhere."""
    refused: dict[QuantType, SlmkitError] = {}
    for quant, order in orders.items():
        if order.variant == order.source.variant:
            refused[quant] = UsageError(f"{order.source.ref} has the type {quant} already")
            continue
        found = registry.find(order.source.model, order.variant)
        if found is None or force:
            continue
        if error := brought(found):
            refused[quant] = error
        elif not may_replace and (how := _otherwise(found, order.spec)):
            refused[quant] = UsageError(
                f"{found.ref} is there already, made in another way ({how})",
                hint=f"replace it: `--force`, or `slmkit rm {found.ref}` first; or make this one beside it: "
                "`--name LABEL`",
            )
    return refused


def _otherwise(found: Artifact, spec: QuantizeSpec) -> str | None:
    """How a file was made that is not what `spec` says, in a word: not by `quantize`, or with other options."""
    if found.provenance.action == "convert":
        return "by convert" if is_whole(found) else None
    if found.provenance.action != "quantize" or spec.is_met_by(found):
        return None
    return ", ".join(QuantizeSpec.of(found.provenance.parameters).parameters) or "no options"
