"""Knowing before, and measuring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit.api.session import Reference, importance, reference, session
from slmkit.core.bench import BenchRun, BenchSpec
from slmkit.core.check import Check, Limits
from slmkit.core.compare import Comparison
from slmkit.core.plan import ModelPlan
from slmkit.core.progress import SILENT, Progress
from slmkit.core.quality import QualityRun, QualitySpec
from slmkit.core.quant import quant_types
from slmkit.registry.store import Registry

if TYPE_CHECKING:
    from datetime import date

    from slmkit.core.history import AnyListed
    from slmkit.ops.runs import Imported


def plan(
    ref: Reference,
    types: Sequence[str] = (),
    *,
    n_ctx: Sequence[int] = (),
    cache_types: Sequence[str] = ("F16",),
    ram_bytes: int | None = None,
    imatrix: str | Path | None = None,
    may_pull: bool = True,
    progress: Progress = SILENT,
) -> ModelPlan:
    """Size, memory and speed (an estimate) of every type, or of `types`; no weight is read or downloaded.

    `imatrix` is a file or `auto`: as `quantize` makes them with it. By default those that need one are.
    """
    from slmkit.recipes import foresight

    return foresight.plan(
        reference(ref),
        session(progress, may_pull),
        types=quant_types(types),
        n_ctx=n_ctx,
        cache_types=cache_types,
        ram_bytes=ram_bytes,
        imatrix=importance(imatrix),
    )


def bench(*refs: Reference, specs: Sequence[BenchSpec] = (), progress: Progress = SILENT) -> BenchRun:
    """Measure speed, time to first token and memory; rows that failed carry their reason."""
    from slmkit.recipes import verbs

    return verbs.bench([reference(r) for r in refs], specs or [BenchSpec()], session(progress))


def quality(
    *refs: Reference,
    base: Reference | None = None,
    corpus: Sequence[str] = (),
    spec: QualitySpec | None = None,
    progress: Progress = SILENT,
) -> list[QualityRun]:
    """Measure perplexity, and KL divergence from each model's float file or from `base`, one run for each model.

    `corpus` names domains that come with slmkit (all of them without any) or files of plain text.
    """
    from slmkit.ops import corpora
    from slmkit.recipes.quality import quality as recipe

    against = None if base is None else reference(base)
    texts = corpora.evaluation(corpus)
    return recipe([reference(r) for r in refs], texts, spec or QualitySpec(), session(progress), base=against)


def check(
    *refs: Reference,
    baseline: BenchRun | None = None,
    limits: Limits | None = None,
    corpus: Sequence[str] = (),
    spec: QualitySpec | None = None,
    progress: Progress = SILENT,
) -> Check:
    """Measure what a baseline has, until it is certain whether it became slower or larger, or that it did not.

    With limits of quality the models are read beside their float files, too; these need no baseline.
    """
    from slmkit.ops import corpora
    from slmkit.recipes.gate import gate

    return gate(
        [reference(ref) for ref in refs],
        limits or Limits(),
        session(progress),
        baseline=baseline,
        corpus=lambda: corpora.evaluation(corpus),
        spec=spec or QualitySpec(),
    )


def compare(*refs: Reference, progress: Progress = SILENT) -> Comparison:
    """One table from what is made and measured already."""
    from slmkit.ops import compare as op
    from slmkit.recipes import verbs

    return op.compare(verbs.artifacts([reference(r) for r in refs], session(progress)), Registry())


def card(ref: Reference, *, license_id: str | None = None, repo: str | None = None, progress: Progress = SILENT) -> str:
    """The README.md of a GGUF repository, which will be `repo`, with what is made and measured already."""
    from slmkit.ops import card as op
    from slmkit.ops import compare as comparing
    from slmkit.recipes import verbs
    from slmkit.report.card import card_markdown

    here = session(progress)
    found = verbs.artifacts([reference(ref)], here)
    compared = comparing.compare(found, here.registry)
    return card_markdown(op.card(found, compared, here.registry, license_id=license_id, repo=repo))


def list_runs(
    *,
    model: str | None = None,
    quant: str | None = None,
    host: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> list[AnyListed]:
    """The runs that were kept, the newest first, with their rows that are looked for; damaged files are passed over."""
    from slmkit.core.history import Wanted
    from slmkit.ops import runs as op

    return op.find(Wanted(model, quant, host, since, until), Registry().home)[0]


def import_runs(*paths: str | Path) -> list[Imported]:
    """Keep the runs in files of `slmkit runs export`, `slmkit bench --json` or llama-bench: all or none."""
    from slmkit.ops import runs as op

    return op.bring([Path(path) for path in paths], Registry().home)
