"""Where the loss sits that a run has measured: its tokens by kind, and its worst contexts read once more."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from slmkit.backends.llamacpp import damage as engine
from slmkit.backends.llamacpp.damage import Found
from slmkit.backends.llamacpp.quality import BASE
from slmkit.core.artifact import Artifact
from slmkit.core.damage import Context, Damage, Place
from slmkit.core.losses import classes, context, groups, worst
from slmkit.core.progress import Progress
from slmkit.core.quality import Chunk, Corpus, QualityRow, QualityRun
from slmkit.errors import UsageError


def damage(run: QualityRun, files: Mapping[str, Artifact], corpus: Corpus, progress: Progress) -> list[Damage]:
    """Of each row that was held against the base to its end; `files` are the run's by digest.

    Raises `UsageError` for another corpus than the run's or no base, and the engine's errors.
    """
    if corpus.sha256 != run.corpus:
        raise UsageError(f"the run was measured on {run.corpus_name}, not on {corpus.name}")
    base = run.base_row
    if base is None:
        raise UsageError("nothing is held against a base: there is no loss to look for", hint="`--base REF`")
    rows = [row for row in run.rows if not (row.is_base or row.failure) and row.chunks and row.chunks[0].kld]
    if not rows:
        return []
    places = [worst(row) for row in rows]
    with progress.task("look at the worst contexts", None, "steps"):
        found = engine.damage(
            files[base.digest].path,
            [files[row.digest].path for row in rows],
            corpus,
            run.spec,
            chunks=list(dict.fromkeys((chunk.domain, chunk.number) for row in rows for chunk in row.chunks)),
            wanted=places,
        )
    n_scored = len(rows[0].chunks[0].kld)
    known = {chunk: classes(pieces, n_scored) for chunk, pieces in found.pieces.items()}
    return [
        Damage(
            ref=row.ref,
            digest=row.digest,
            groups=tuple(groups(row, known, run.spec.n_ctx)),
            worst=tuple(_context(number, row, base, place, found) for place in places[number]),
        )
        for number, row in enumerate(rows)
    ]


def _context(number: int, row: QualityRow, base: QualityRow, place: Place, found: Found) -> Context:
    own, against = _chunk(row, place), _chunk(base, place)
    before, token = context(found.pieces[place.domain, place.number], len(own.kld), place.index)
    return Context(
        place=place,
        before=before,
        token=token,
        base_probability=exp(-against.nll[place.index]),
        probability=exp(-own.nll[place.index]),
        base_top=found.top[BASE, place.domain, place.number, place.index],
        top=found.top[number, place.domain, place.number, place.index],
    )


def _chunk(row: QualityRow, place: Place) -> Chunk:
    return next(chunk for chunk in row.of_domain(place.domain) if chunk.number == place.number)
