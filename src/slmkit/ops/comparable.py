"""Which measurements of quality may stand in one table: of the same text, read as far, beside the same base."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from slmkit.core import units
from slmkit.core.artifact import Artifact
from slmkit.core.compare import Judged, QualityTerms
from slmkit.core.quality import QualityRow, QualityRun, QualitySpec
from slmkit.core.quant import FLOATS
from slmkit.ops.corpora import DOMAINS

_EVERYTHING = "all domains"


@dataclass(frozen=True)
class Chosen:
    """By digest what was measured under the same terms, `None` where nothing was; what was left out, and why.

    `commands` measure the rest under these terms.
    """

    judged: Mapping[str, Judged] = field(default_factory=dict)
    terms: QualityTerms | None = None
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A row and the run that it is of."""

    run: QualityRun
    row: QualityRow
    model: str

    @property
    def terms(self) -> QualityTerms:
        """How much was read counts, not how much was asked for."""
        run = self.run
        n_chunks = len(self.row.chunks) or max(len(row.chunks) for row in run.rows)
        build = tuple(sorted(run.build.items()))
        return QualityTerms(run.corpus_name, run.corpus, run.spec.n_ctx, n_chunks, build, run.base_precision)

    @property
    def key(self) -> tuple[object, ...]:
        """The terms without the corpus's name: a text is its digest, whatever it is called."""
        terms = self.terms
        return (terms.corpus, terms.n_ctx, terms.n_chunks, terms.build, terms.base_precision)

    def judged(self) -> Judged:
        """Its figures."""
        return Judged.of(self.row, self.run.base_row)


def choose(artifacts: Sequence[Artifact], runs: Sequence[QualityRun]) -> Chosen:
    """The newest rows under those terms that most of the artifacts have; `runs` are the newest first.

    Each model has a base of its own, that which most of its artifacts were held against. What failed does not count.
    """
    models = {artifact.digest: artifact.model for artifact in artifacts}
    found = [
        _Found(run, row, models[row.digest])
        for run in runs
        for row in run.rows
        if row.digest in models and row.was_read
    ]
    if not found:
        return Chosen()
    groups: dict[tuple[object, ...], dict[tuple[str, str | None], dict[str, _Found]]] = {}
    for each in found:
        by_base = groups.setdefault(each.key, {})
        by_base.setdefault((each.model, each.run.base), {}).setdefault(each.row.digest, each)
    chosen = max((_of_each_model(by_base) for by_base in groups.values()), key=len)
    return Chosen(
        {digest: each.judged() for digest, each in chosen.items()},
        next(iter(chosen.values())).terms,
        tuple(_left_out(artifacts, found, chosen)),
        tuple(_commands([artifact for artifact in artifacts if artifact.digest not in chosen], chosen)),
    )


def newest(artifacts: Sequence[Artifact], runs: Sequence[QualityRun]) -> dict[str, Judged]:
    """By digest the newest measurement of each beside another file, whatever its terms: they are not comparable, but
    say about what to expect. `runs` are the newest first.
    """
    wanted = {artifact.digest for artifact in artifacts}
    found: dict[str, Judged] = {}
    for run in runs:
        for row in run.rows:
            if row.digest in wanted and row.digest not in found and row.was_read and not row.is_base:
                found[row.digest] = Judged.of(row, run.base_row)
    return found


def _of_each_model(by_base: Mapping[tuple[str, str | None], Mapping[str, _Found]]) -> dict[str, _Found]:
    """Of each model the rows beside the base that most of it has."""
    largest: dict[str, Mapping[str, _Found]] = {}
    for (model, _), rows in by_base.items():
        if len(rows) > len(largest.get(model, ())):
            largest[model] = rows
    return {digest: each for rows in largest.values() for digest, each in rows.items()}


def _left_out(artifacts: Sequence[Artifact], found: Sequence[_Found], chosen: Mapping[str, _Found]) -> Iterator[str]:
    """Of each artifact that was measured, but not so, what is not the same."""
    some = next(iter(chosen.values()))
    bases = {each.model: each.run for each in chosen.values()}
    for artifact in artifacts:
        newest = next((each for each in found if each.row.digest == artifact.digest), None)
        if newest and artifact.digest not in chosen:
            against = bases.get(artifact.model)
            unlike = ", ".join(_unlike(newest, some, against))
            yield f"{artifact.ref}: its quality is left out, it was measured with {unlike}"


def _unlike(one: _Found, other: _Found, against: QualityRun | None) -> Iterator[str]:
    mine, theirs = one.terms, other.terms
    if mine.corpus != theirs.corpus:
        yield f"another corpus ({mine.corpus_name}, {mine.corpus[:12]})"
    if mine.n_ctx != theirs.n_ctx:
        yield f"n_ctx {mine.n_ctx}"
    if mine.n_chunks != theirs.n_chunks:
        yield units.several(mine.n_chunks, "chunk")
    if mine.build != theirs.build:
        yield "another build of the engine"
    if mine.base_precision != theirs.base_precision:
        yield "the base itself" if mine.base_precision == "exact" else "a saved base"
    if against is not None and one.run.base != against.base:
        base = one.run.base_row
        yield f"another base ({base.ref})" if base else "no base"


def _corpus(name: str) -> Iterator[str]:
    """The option for it. Of a text of the user's only the file's name is known: where it lies is to be filled in."""
    if name == _EVERYTHING:
        return
    names = name.split(", ")
    if all(each in DOMAINS for each in names):
        yield from ("--corpus", ",".join(names))
        return
    for each in names:
        yield from ("--corpus", each if each in DOMAINS else f"PATH/TO/{each}")


def _commands(missing: Sequence[Artifact], chosen: Mapping[str, _Found]) -> Iterator[str]:
    """One for all files whose base is found by itself, one for each other base."""
    plain, run = QualitySpec(), next(iter(chosen.values())).run
    options = [
        *_corpus(run.corpus_name),
        *(("--ctx", str(run.spec.n_ctx)) if run.spec.n_ctx != plain.n_ctx else ()),
        *(("--chunks", str(run.spec.n_chunks)) if run.spec.n_chunks is not None else ()),
    ]
    bases = {each.model: each.run.base_row for each in chosen.values()}
    by_base: dict[str | None, list[str]] = {}
    for artifact in missing:
        base = bases.get(artifact.model)
        by_itself = base is None or base.ref in {f"{artifact.model}:{kind}" for kind in FLOATS}
        by_base.setdefault(None if base is None or by_itself else base.ref, []).append(artifact.ref)
    for ref, refs in by_base.items():
        yield f"slmkit quality {shlex.join([*refs, *(['--base', ref] if ref else []), *options])}"
