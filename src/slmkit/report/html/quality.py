"""The page of runs of `quality`: figures, answers, where the loss sits, machine, and what the words mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from slmkit.core.history import label_of
from slmkit.core.quality import QualityRun
from slmkit.report import compared
from slmkit.report.asked import behaviour_table, tasks_table
from slmkit.report.damage import where_lost
from slmkit.report.html.damage import worst_contexts
from slmkit.report.html.machine import machine
from slmkit.report.html.markup import Markup, join, tag
from slmkit.report.html.page import notes, page, sortable
from slmkit.report.html.pictures import WIDTH, pictures
from slmkit.report.plots import size_kld
from slmkit.report.quality import domains_table, quality_table
from slmkit.report.table import Table

DEFINITIONS = (
    "PPL: perplexity, of the tokens in the second half of each chunk, as llama-perplexity computes it.",
    "KLD: how far the probabilities of all possible next tokens are from the base's, in nats, the mean over the same "
    "tokens; same top: how often the most likely token is the base's.",
    f"verdict by mean KLD: {compared.thresholds()}; broken is also a file with another "
    "vocabulary than its base, and one whose scores no quantization explains.",
)
_OF_TASKS = (
    "Questions: the answer is the choice that the model finds most likely, as lm-evaluation-harness scores it; p is "
    "how likely a difference as large is by chance (McNemar's exact test)."
)
_OF_BEHAVIOUR = (
    "Answers: the likeliest token each time; a loop is an answer that does not end and whose last tokens repeat; valid "
    "JSON begins with a whole object."
)
_OF_DAMAGE = (
    "Where the loss sits: each scored token of the text is of one kind, one domain and one place in its chunk; a kind "
    "whose share of all KLD is far above its share of the tokens is what the file is bad at. ␣ is a space."
)


def quality_page(*runs: QualityRun) -> str:
    """One run, or several side by side."""
    models = dict.fromkeys(row.ref.rpartition(":")[0] or label_of(row.ref) for run in runs for row in run.rows[:1])
    table = quality_table(runs)
    known = size_kld.of_runs(runs)
    draw = [partial(size_kld.draw, known, WIDTH)] if size_kld.is_known(known) else []
    return page(
        f"quality: {', '.join(models)}",
        tag("p", "; ".join(f"{run.created[:16].replace('T', ' ')} UTC, slmkit {run.slmkit}" for run in runs)),
        sortable(table),
        notes(table),
        tag("details", tag("summary", "All columns"), sortable(quality_table(runs, wide=True))),
        *([pictures(draw)] if draw else []),
        *_part("By domain", domains_table(runs)),
        *_part("Questions", tasks_table(runs)),
        *_part("Answers", behaviour_table(runs)),
        *_damage(runs),
        tag("h2", "What the words mean"),
        tag("ul", *(tag("li", text) for text in _definitions(runs))),
        *(machine(run.host, run.build) for run in runs),
    )


def _part(title: str, table: Table | None) -> Iterator[Markup]:
    if table:
        yield tag("h2", title)
        yield sortable(table)
        yield notes(table)


def _damage(runs: Sequence[QualityRun]) -> Iterator[Markup]:
    damages = [damage for run in runs for damage in run.damages]
    if damages:
        yield tag("h2", "Where the loss sits")
        yield join(*map(sortable, where_lost(runs)))
        yield join(*map(worst_contexts, damages))


def _definitions(runs: Sequence[QualityRun]) -> Iterator[str]:
    yield from DEFINITIONS
    if any(run.tasks for run in runs):
        yield _OF_TASKS
    if any(run.behaviour for run in runs):
        yield _OF_BEHAVIOUR
    if any(run.damages for run in runs):
        yield _OF_DAMAGE
