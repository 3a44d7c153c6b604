"""`quality --sensitivity`: each group of tensors quantized alone, held against the float file, and thrown away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from slmkit._version import __version__
from slmkit.backends.llamacpp import engine
from slmkit.core.progress import SILENT, Task
from slmkit.core.quality import Corpus, QualityRow, QualitySpec
from slmkit.core.quant import QuantType
from slmkit.core.refs import ModelRef
from slmkit.core.sensitivity import HIGHER, Cost, Sensitivity, TensorGroup, costly, tensor_groups
from slmkit.errors import EngineTimeoutError
from slmkit.host import memory, probe
from slmkit.ops.describe import now
from slmkit.ops.quality import quality
from slmkit.recipes import schema
from slmkit.recipes.partly import Partly, Types
from slmkit.recipes.session import Session
from slmkit.recipes.verbs import float_source
from slmkit.registry import atomic, runs
from slmkit.registry.journals import Journal, journal
from slmkit.registry.store import Registry
from slmkit.registry.unchanged import unchanged
from slmkit.report.sensitivity import recipe_text, rules_text
from slmkit.report.table import writing

DEFAULT_CHUNKS = 16
MOST_TOGETHER = 8
"""Files that share one reading of the base, where disk and memory allow as many."""
_SPARE_SHARE = 0.5
"""Of the disk and the memory that are free, so much may be taken."""


def sensitivity(
    ref: ModelRef,
    quant: QuantType,
    corpus: Corpus,
    spec: QualitySpec,
    session: Session,
    *,
    keep_costly: bool = False,
    resume: bool = False,
) -> Sensitivity:
    """Quantize the float file of `ref` again and again, each time another group of its tensors to what it is in a file
    of the type `quant`, and measure what that costs; at last all together. With `keep_costly` also the file in which
    the tensors of costly groups have a higher type. Limits of `spec` are not heeded.

    The files lie in the registry's folder while they are measured, a few at a time. What is measured when it is
    interrupted is kept: `resume` goes on with it.

    Raises `UsageError` for a source that is quantized or a type that is not, `ImatrixNeededError`, `DiskFullError`,
    `ChangedError`, `EngineTimeoutError` when the time of `spec` is over, and what goes wrong with the engine.
    """
    source = float_source(ref, session)
    home, progress = session.registry.home, session.progress
    spec = QualitySpec(
        n_ctx=spec.n_ctx,
        n_chunks=spec.n_chunks or DEFAULT_CHUNKS,
        n_threads=spec.n_threads or probe.physical_cores(),
        n_gpu_layers=spec.n_gpu_layers,
        timeout_s=spec.timeout_s,
    )
    started = time.monotonic()
    partly = Partly(source, quant)
    groups = [*tensor_groups(partly.planned), TensorGroup("all", "all together", tuple(partly.planned))]
    todo = {group: {name: partly.planned[name] for name in group.tensors} for group in groups}
    partly.check(list(todo.values()))
    raised: Types = {}
    key: dict[str, Any] = {runs.SENSITIVITY: source.digest, "type": quant.name, "corpus": corpus.sha256}
    key |= {"spec": asdict(replace(spec, timeout_s=None))}  # one may go on with more time
    with unchanged(source), journal(home, key, resume=resume) as kept:
        measuring = _Measuring(partly, corpus, spec, home, kept, started)
        n_steps = len(groups) + keep_costly
        with kept.told("measured", progress), progress.task(f"sensitivity to {quant}", n_steps, "steps") as task:
            costs = measuring.costs(todo, task)
            if keep_costly:
                raised = partly.higher({name for cost in costly(costs) for name in cost.group.tensors})
            if raised:
                mixed = TensorGroup("kept", f"costly in {HIGHER}", tuple(partly.planned))
                costs += measuring.costs({mixed: {**partly.planned, **raised}}, task)
        found = Sensitivity(
            created=now(),
            host=probe.host().document(),
            build=engine.build(),
            ref=source.ref,
            base=source.digest,
            type=quant.name,
            corpus_name=corpus.name,
            corpus=corpus.sha256,
            spec=spec,
            costs=tuple(costs),
            rules=tuple((rule.pattern, rule.type) for rule in partly.fewest_rules(raised)) if raised else (),
            slmkit=__version__,
            elapsed_s=time.monotonic() - started,
        )
        runs.save(home, runs.SENSITIVITY, found.document())
        kept.done = True
    return found


def write_recipe(found: Sensitivity, path: Path) -> None:
    """The type with its costly groups kept: a recipe where `path` ends in `.toml`, else rules for `quantize --rules`.

    Raises `CannotWriteError` and `DiskFullError`.
    """
    is_recipe = path.suffix.lower() == ".toml"
    with writing(path):
        path.write_text(recipe_text(found, path.stem) if is_recipe else rules_text(found), encoding="utf-8")
    if is_recipe:
        schema.load(path)  # what it does not take must not be handed out


@dataclass(frozen=True)
class _Measuring:
    """Makes files in batches, measures them and throws them away; `kept` remembers. The time is for all of them, from
    `started` on.
    """

    partly: Partly
    corpus: Corpus
    spec: QualitySpec
    home: Path
    kept: Journal
    started: float

    def costs(self, todo: Mapping[TensorGroup, Types], task: Task) -> list[Cost]:
        """Of each group; what an interrupted run has measured is not measured again."""
        known = {cost.group: cost for cost in map(Cost.from_document, self.kept.records)}
        found = {group: known[group] for group in todo if group in known}
        task.advance(len(found))
        rest = [group for group in todo if group not in found]
        while rest:
            n = self._n_together()
            found |= self._batch({group: todo[group] for group in rest[:n]}, task)
            rest = rest[n:]
        return [found[group] for group in todo]

    def _batch(self, todo: Mapping[TensorGroup, Types], task: Task) -> Mapping[TensorGroup, Cost]:
        assert self.spec.n_threads is not None
        found = {}
        with atomic.scratch(self.home) as folder:
            files = []
            for group, types in todo.items():
                task.describe(f"quantize {group.name} to {self.partly.quant}")
                files.append(self.partly.make(types, group.name, folder, self.spec.n_threads))
            task.describe(f"measure {', '.join(group.name for group in todo)}")
            # A registry of its own, which goes with the files: this run says nothing about any that stays.
            try:
                run = quality(self.partly.source, files, self.corpus, self._spec_now, Registry(folder), SILENT)
            except EngineTimeoutError as error:
                raise self.kept.late("measured", self.spec.timeout_s, error) from error
            base, *rows = run.rows
            for (group, types), row in zip(todo.items(), rows, strict=True):
                found[group] = _cost(group, self.partly.saved_bytes(types), row, base)
                if found[group].failure is None:
                    self.kept.add(found[group].document())
                task.advance()
        return found

    @property
    def _spec_now(self) -> QualitySpec:
        """With the time that is left."""
        if self.spec.timeout_s is None:
            return self.spec
        return replace(self.spec, timeout_s=max(0.0, self.started + self.spec.timeout_s - time.monotonic()))

    def _n_together(self) -> int:
        """A loaded file takes up to twice its size."""
        size_bytes = self.partly.source.size_bytes
        disk = shutil.disk_usage(self.home).free * _SPARE_SHARE / size_bytes
        loaded = memory.available_bytes() * _SPARE_SHARE / (2 * size_bytes) - 1
        return max(1, min(MOST_TOGETHER, int(disk), int(loaded)))


def _cost(group: TensorGroup, saved_bytes: int, row: QualityRow, base: QualityRow) -> Cost:
    """What a row says. A base that guesses itself makes no group guilty of that."""
    if row.failure or not row.chunks:
        reason = row.failure.message if row.failure else row.defect or "nothing was read of it"
        return Cost(group, saved_bytes, failure=reason, defect=row.defect)
    n_same = sum(sum(chunk.same_top) for chunk in row.chunks)
    klds = tuple(fmean(chunk.kld) for chunk in row.chunks)
    return Cost(group, saved_bytes, klds, n_same / row.n_tokens, defect=None if base.defect else row.defect)
