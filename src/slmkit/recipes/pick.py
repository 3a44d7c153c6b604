"""`pick`: from a model's name to the file to take. What is missing is pulled, made, benched and judged, then one is
chosen; what is known already is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.pick import Keep, LeftOut, Pick, PickRow, Removed
from slmkit.core.plan import ROOMY_SHARE, ModelPlan, TypePlan
from slmkit.core.quality import Corpus, QualitySpec
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.recommend import Choice, Wish, choose
from slmkit.core.refs import ModelRef
from slmkit.core.units import several, size
from slmkit.errors import SlmkitError, UsageError
from slmkit.ops import locate
from slmkit.recipes import against, candidates, foresight
from slmkit.recipes.disk import check_disk
from slmkit.recipes.losers import remove_losers
from slmkit.recipes.session import Session
from slmkit.recipes.trial import Trial
from slmkit.recipes.verbs import DEFAULT_FLOAT
from slmkit.registry.journals import journal

REPETITIONS = 6
"""Of each test: two processes of three."""
N_CHUNKS = 32
"""Of 512 tokens: a mean KLD is then known to some percent."""


@dataclass(frozen=True)
class PickOrder:
    """What is tried, how it is measured, which limits it has to keep, and whether the losers' files stay.
    With `imatrix`, as for `quantize`, types are made with an importance matrix.
    """

    types: tuple[QuantType, ...]
    wish: Wish
    bench: BenchSpec
    quality: QualitySpec
    corpus: Corpus
    keep: Keep = "all"
    imatrix: Path | Literal["auto"] | None = None


def pick(ref: ModelRef, order: PickOrder, session: Session) -> Pick:
    """Try every type of `order` on a model, and choose. A type that fails is a row with its reason.

    Interrupted, it goes on where it was when it is called again: with what is made and measured, and with knowing what
    it made itself, which is all that `keep` "best" removes. A best one whose file was removed is made again; where that
    cannot be, it is named all the same, as not `here`, and nothing is removed.

    Raises before anything is made `UsageError` for nothing to try and no float file to judge it against and
    `DiskFullError`; and what goes wrong with the float file.
    """
    started = time.monotonic()
    asked = locate.expand(ref)
    build = engine.build()  # first: without an engine nothing is asked of the Hub
    ref = against.float_ref(asked, session)
    floats = () if ref.variant else (QUANT_TYPES[DEFAULT_FLOAT],)
    planned = foresight.plan(
        ref,
        session,
        types=tuple(dict.fromkeys((*order.types, *floats))),
        n_ctx=[order.wish.n_ctx] if order.wish.n_ctx else (),
        ram_bytes=order.wish.ram_bytes,
        imatrix=order.imatrix,
    )
    wish = replace(order.wish, n_ctx=planned.contexts[0].n_ctx)
    able, left_out = to_try(planned, order.types)
    too_large = list(_too_large(planned, able, wish))
    left_out += too_large
    types = [quant for quant in able if quant.name not in {each.name for each in too_large}]
    if not able:
        reasons = "; ".join(dict.fromkeys(each.reason for each in left_out))
        raise UsageError(f"no type can be tried: {reasons}", hint="name others: `--types Q4_K_M,Q8_0`")
    if not types:
        model, corpus, nothing = candidates.model_of(ref, session), order.corpus.name, choose([], wish)
        return Pick(model, (), nothing, corpus, order.quality.n_chunks, tuple(left_out), notes=planned.notes)
    how = (build, order.bench, order.corpus, order.quality)
    trial = Trial(asked, types, planned, *how, session, imatrix=order.imatrix)
    with journal(session.registry.home, {"pick": trial.model}, resume=None) as kept:
        made = {record["made"] for record in kept.records}
        need_bytes = _need_bytes(trial, ref)
        check_disk(need_bytes, f"trying {several(len(types), 'type')}", session.progress, hint="fewer: `--types`")

        def keep(artifacts: Iterator[Artifact]) -> None:
            for artifact in artifacts:
                made.add(artifact.digest)
                kept.add({"made": artifact.digest})

        keep(trial.make())
        n_benched, n_judged = trial.bench(), trial.judge()
        rows, choice = _chosen(trial, wish)
        if choice.best and not choice.best.here:
            try:
                keep(trial.restore(choice.best.ref))
            except SlmkitError as error:
                session.progress.warn(f"{choice.best.ref} is not here: {error.message}")
            rows, choice = _chosen(trial, wish)
        removed: tuple[Removed, ...] = ()
        if order.keep == "best" and choice.best and choice.best.here:
            best = next(artifact for artifact in trial.files if artifact.ref == choice.best.ref)
            removed = tuple(remove_losers(trial.files, made, session, best=best))
        kept.done = choice.best is not None
    return Pick(
        model=trial.model,
        rows=rows,
        choice=choice,
        corpus_name=order.corpus.name,
        n_chunks=order.quality.n_chunks,
        left_out=tuple(left_out),
        fresh=tuple(artifact.ref for artifact in trial.fresh),
        n_benched=n_benched,
        n_judged=n_judged,
        disk_bytes=sum(need_bytes.values()),
        removed=removed,
        notes=planned.notes,
        elapsed_s=time.monotonic() - started,
    )


def to_try(planned: ModelPlan, wanted: Sequence[QuantType]) -> tuple[list[QuantType], list[LeftOut]]:
    """Of the wanted types those that come to something of their own for this model, and the others with the reason."""

    def lacks(row: TypePlan) -> bool:
        return row.needs_imatrix and planned.imatrix is None

    rows = {row.variant: row for row in planned.types}
    names = {quant.name for quant in wanted if (row := rows.get(quant.name)) and not lacks(row)}
    found, left_out = [], []
    for quant in wanted:
        row = rows.get(quant.name)
        if row is None or row.refusal:
            left_out.append(LeftOut(quant.name, row.refusal if row and row.refusal else "it cannot be planned"))
        elif lacks(row):
            left_out.append(LeftOut(quant.name, "it needs an importance matrix: `--imatrix auto`"))
        elif row.same_as in names:
            left_out.append(LeftOut(quant.name, f"it would be the same as {row.same_as}: this model's rows do not fit"))
        else:
            found.append(quant)
    return found, left_out


def _too_large(planned: ModelPlan, types: Sequence[QuantType], wish: Wish) -> Iterator[LeftOut]:
    """Those that would not fit into the memory that is wished for."""
    for quant in types:
        need_bytes = candidates.planned_bytes(candidates.row_of(planned, quant.name))
        if wish.ram_bytes and need_bytes and need_bytes > ROOMY_SHARE * wish.ram_bytes:
            needs = f"it needs {size(need_bytes)} at {wish.n_ctx:,} tokens"
            yield LeftOut(quant.name, f"{needs}: more than {ROOMY_SHARE:.0%} of {size(wish.ram_bytes)}", need_bytes)


def _chosen(trial: Trial, wish: Wish) -> tuple[tuple[PickRow, ...], Choice]:
    """What is known now, and which is the best by it."""
    rows = tuple(_rows(trial))
    return rows, choose([row.candidate for row in rows if not row.is_base], wish)


def _rows(trial: Trial) -> Iterator[PickRow]:
    """The float file first, unless it is among those that are tried."""
    if trial.base and trial.base.variant not in {quant.name for quant in trial.types}:
        yield trial.row(trial.base, is_base=True)
    for quant in trial.types:
        yield trial.row_of(quant)


def _need_bytes(trial: Trial, ref: ModelRef) -> Mapping[Path, int]:
    """What is to be written, by folder: the types that are missing, the float file that they are made from, what a
    pull of the checkpoint would bring. To the byte: plan and Hub know the sizes of files.
    """
    session = trial.session
    sizes = {row.variant: row.size_bytes or 0 for row in trial.planned.types}
    names = {quant.name for quant in trial.missing}
    if trial.is_base_here or not (names or trial.unjudged):
        return {session.registry.home: sum(sizes[name] for name in names)}
    need = {session.registry.home: sum(sizes[name] for name in {*names, DEFAULT_FLOAT})}
    if ref.kind == "hub" and locate.checkpoint(ref, session.registry, session.progress) is None:
        from slmkit.hub import reach  # loads huggingface_hub

        with foresight.unread(ref, session) as source:
            folder = reach.cache_dir()
            need[folder] = need.get(folder, 0) + source.missing_bytes
    return need
