"""Files of one model that are to be compared: which of them are known, and the making and measuring of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRow, BenchSpec
from slmkit.core.compare import Judged
from slmkit.core.pick import PickRow
from slmkit.core.plan import ModelPlan
from slmkit.core.quality import Corpus, QualitySpec
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec, variant_name
from slmkit.core.recommend import Candidate
from slmkit.core.refs import ModelRef
from slmkit.errors import SlmkitError
from slmkit.ops import bench as bench_op
from slmkit.ops import compare, locate
from slmkit.ops import quality as quality_op
from slmkit.ops.quality import known
from slmkit.ops.quality.length import check_length
from slmkit.recipes import against, candidates, verbs
from slmkit.recipes.get import get
from slmkit.recipes.session import Session
from slmkit.recipes.spared import dropped_floats, known_imatrix
from slmkit.registry import dropped
from slmkit.registry.lineage import state
from slmkit.registry.store import is_whole

EFFORT = bench_op.Effort(precision=0.05, max_time_s=60.0)
"""Of the bench: what is compared differs by more than 5 %, as a rule."""


class Trial:
    """`types` are tried, `planned` has all of them. `base` is the float file that the others are held against, or its
    recipe, `None` before there is one; `artifacts` are the files by variant, or their recipes where all is known of
    them; those of `here` as they are, whatever they are called and were made from. `benched` and `judged` are what was
    measured of them so far, by digest; `fresh` are those that were made here. With `imatrix` (as for `quantize`)
    quantized types are made with one.

    Raises `UsageError` for a quantized file of whose model there is no float file.
    """

    def __init__(
        self,
        ref: ModelRef,
        types: Sequence[QuantType],
        planned: ModelPlan,
        build: Mapping[str, str],
        bench: BenchSpec,
        corpus: Corpus,
        quality: QualitySpec,
        session: Session,
        *,
        imatrix: Path | Literal["auto"] | None = None,
        here: Sequence[Artifact] = (),
    ) -> None:
        self.ref, self.types, self.planned, self.session = against.float_ref(ref, session), types, planned, session
        self._named = against.named(ref, session) if self.ref != ref else None
        self._build, self._bench, self._corpus, self._quality = build, bench, corpus, quality
        self._imatrix = imatrix
        self._failures: dict[str, str] = {}
        self._is_long_enough = False
        self.model = candidates.model_of(ref, session)
        self.fresh: list[Artifact] = []
        self.benched: dict[str, BenchRow] = {}
        self.judged: dict[str, Judged] = {}
        self.base = self._known_base()
        given = {a.variant: a for a in here if a.variant}
        self.artifacts = {quant.name: a for quant in types if (a := self._known(quant))} | given
        self._look()
        self.artifacts = {name: a for name, a in self.artifacts.items() if state(a) == "here" or self._is_settled(a)}

    @property
    def is_base_here(self) -> bool:
        """Whether the base's file exists."""
        return self.base is not None and state(self.base) == "here"

    @property
    def files(self) -> list[Artifact]:
        """The base and the others, each once."""
        names = dict.fromkeys([*(quant.name for quant in self.types), *self.artifacts])
        others = (self.artifacts.get(name) for name in names)
        every = [*([self.base] if self.base else []), *(artifact for artifact in others if artifact)]
        return list({artifact.digest: artifact for artifact in every}.values())

    @property
    def missing(self) -> list[QuantType]:
        """What has to be made."""
        return [quant for quant in self.types if quant.name not in self.artifacts]

    @property
    def unjudged(self) -> list[Artifact]:
        """What has to be read beside the base."""
        return [a for a in self.files if not self._is_base(a) and a.digest not in self.judged]

    def make(self, types: Sequence[QuantType] | None = None) -> Iterator[Artifact]:
        """Make what is missing (of `types`), several at the same time, and yield what was made, the float file too.

        What cannot be made is remembered for its row. Raises `UsageError` for a corpus that is too short, before
        anything but the float file is made.
        """
        missing = [quant for quant in self.missing if types is None or quant in types]
        if missing or (self.unjudged and not self.is_base_here):
            yield from self._make_base()
        if self.base and self.is_base_here and (missing or self.unjudged) and not self._is_long_enough:
            check_length(self.base, self._corpus, self._quality)
            self._is_long_enough = True

        def failed(quant: QuantType, error: SlmkitError) -> None:
            self._failures[quant.name] = error.message

        if missing:
            made = verbs.quantize(self.ref, missing, self.session, imatrix=self._imatrix, on_failure=failed)
            with closing(made) as reports:
                for report in reports:
                    self.artifacts[report.quant.name] = report.artifact
                    if report.fresh:
                        self.fresh.append(report.artifact)
                        yield report.artifact
        self._look()

    def restore(self, ref: str) -> Iterator[Artifact]:
        """Make a file again of which only the recipe is here, and yield what was made for that, a float file too.

        Raises what `get` does.
        """
        for got in get(ModelRef.parse(ref), self.session):
            artifact = got.artifact
            if self._is_base(artifact):
                self.base = artifact
            names = [name for name, one in self.artifacts.items() if one.variant == artifact.variant]
            self.artifacts |= dict.fromkeys(names, artifact)
            if got.fresh:
                self.fresh.append(artifact)
                yield artifact

    def bench(self, only: str | None = None, *, timeout_s: float | None = None) -> int:
        """Measure the speed of what was not measured (or of one type), in turn; how many files that were.

        Raises `EngineTimeoutError` when that takes more than `timeout_s`; what is measured then is kept.
        """
        todo = [a for a in self.files if a.digest not in self.benched and state(a) == "here"]
        todo = [a for a in todo if only in (None, a.variant)]
        if todo:
            session = self.session
            run = bench_op.bench(
                todo, [self._bench], session.registry, session.progress, EFFORT, resume=None, timeout_s=timeout_s
            )
            self._failures |= {row.digest: row.failure.message for row in run.rows if row.failure}
            self._look()
        return len(todo)

    def judge(self, only: str | None = None, *, timeout_s: float | None = None) -> int:
        """Read the corpus with what was not read (or with one type), beside the base; how many files that were.

        Raises `EngineTimeoutError` when that takes more than `timeout_s`; what is read then is kept.
        """
        todo = [a for a in self.unjudged if a.digest not in self._failures and only in (None, a.variant)]
        if todo and self.base:
            registry, progress = self.session.registry, self.session.progress
            spec = replace(self._quality, timeout_s=timeout_s)
            run = quality_op.quality(self.base, todo, self._corpus, spec, registry, progress, resume=None)
            self._failures |= {row.digest: row.failure.message for row in run.rows if row.failure}
            self._look()
        return len(todo)

    def row_of(self, quant: QuantType) -> PickRow:
        """All that is known of a type now."""
        if artifact := self.artifacts.get(quant.name):
            return self.row(artifact)
        plan = candidates.row_of(self.planned, quant.name)
        size_bytes = (plan.size_bytes if plan else None) or 0
        failure = self._failures.get(quant.name, "it was not made")
        ref = f"{self.model}:{quant.name}"
        return PickRow(Candidate(quant.name, ref, size_bytes, state="", failure=failure, here=False))

    def row(self, artifact: Artifact, *, is_base: bool = False) -> PickRow:
        """All that is known of a file now."""
        bench, judged = self.benched.get(artifact.digest), self.judged.get(artifact.digest)
        candidate = candidates.measured(
            artifact,
            candidates.row_of(self.planned, (artifact.variant or "").partition("-")[0]),
            bench,
            judged,
            is_base=self._is_base(artifact),
            failure=self._failures.get(artifact.digest),
            here=state(artifact) == "here",
        )
        return PickRow(candidate, bench, judged.scores if judged else None, is_base)

    def _look(self) -> None:
        """What is in the registry's runs."""
        files, registry = self.files, self.session.registry
        self.benched = compare.measured(files, self._bench, self._build, registry)
        if self.base:
            digests, base = [a.digest for a in files], self.base.digest
            self.judged = known.judged(digests, base, self._corpus, self._quality, self._build, registry)

    def _is_base(self, artifact: Artifact) -> bool:
        return self.base is not None and artifact.digest == self.base.digest

    def _is_settled(self, artifact: Artifact) -> bool:
        """Whether all is known of it, so that its file is not needed."""
        return artifact.digest in self.benched and (self._is_base(artifact) or artifact.digest in self.judged)

    def _make_base(self) -> Iterator[Artifact]:
        before = self.base if self.is_base_here else None
        self.base = verbs.float_source(self.ref, self.session)
        if before is None or before.digest != self.base.digest:
            self.fresh.append(self.base)
            yield self.base

    def _known_base(self) -> Artifact | None:
        """The float file that `ref` names, the most exact that is here, or the recipe of one that was dropped."""
        if self.ref.variant is not None or against.is_gguf(self.ref):
            return verbs.float_source(self.ref, self.session)
        source = locate.checkpoint(self.ref, self.session.registry, self.session.progress)
        here = locate.best_float(self.model, source, self.session.registry)
        return here or next(dropped_floats(self.ref, self.session), None)

    def _known(self, quant: QuantType) -> Artifact | None:
        """The file of a type, or its recipe: the quantized one that was named, made from the base as it would be now, a
        float of the same checkpoint, or brought by the user.
        """
        if self.base is None or quant.name == self.base.variant:
            return self.base
        wanted = None if quant.is_float else self._imatrix
        file = known_imatrix(wanted, self.base, self.session.registry) if wanted else None
        if wanted and file is None:
            return None  # it is still to be collected
        spec = QuantizeSpec(imatrix=file)
        variant = variant_name(quant, spec, source=self.base.variant)
        if self._named and variant == self._named.variant:
            return self._named
        registry = self.session.registry
        here = registry.find(self.model, variant)
        found = here if here and is_whole(here) else dropped.find(registry.home, self.model, variant)
        if found is None or found.provenance.is_brought:
            return found
        origin = {self.base.digest, *([file.digest] if file else [])}
        is_child = origin <= set(found.provenance.parents) and spec.is_met_by(found)
        is_sibling = found.provenance.parents == self.base.provenance.parents  # also what convert makes, a Q8_0 say
        return found if is_child or is_sibling else None
