"""Which file to take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmkit.api.session import Reference, importance, reference, session
from slmkit.core.bench import BenchSpec
from slmkit.core.pick import LADDER, Keep, Pick
from slmkit.core.progress import SILENT, Progress
from slmkit.core.quality import QualitySpec
from slmkit.core.quant import quant_types
from slmkit.core.recommend import Recommendation, Wish


def pick(
    ref: Reference,
    wish: Wish | None = None,
    *,
    types: Sequence[str] = LADDER,
    imatrix: str | Path | None = None,
    keep: Keep = "all",
    corpus: Sequence[str] = (),
    bench: BenchSpec | None = None,
    quality: QualitySpec | None = None,
    may_pull: bool = True,
    progress: Progress = SILENT,
) -> Pick:
    """Make, bench and judge the usual types of a model, and choose the best of those that keep the limits of `wish`.

    What is made or measured already is not done again. `imatrix` is a file, or `auto` (collected where there is none):
    types are made with it. `keep` "best" removes the other files that it has made.
    """
    from slmkit.ops import corpora
    from slmkit.recipes.pick import N_CHUNKS, REPETITIONS, PickOrder
    from slmkit.recipes.pick import pick as recipe

    order = PickOrder(
        types=quant_types(types),
        wish=wish or Wish(),
        bench=bench or BenchSpec(repetitions=REPETITIONS),
        quality=quality or QualitySpec(n_chunks=N_CHUNKS),
        corpus=corpora.evaluation(corpus),
        keep=keep,
        imatrix=importance(imatrix),
    )
    return recipe(reference(ref), order, session(progress, may_pull))


def recommend(
    ref: Reference,
    wish: Wish | None = None,
    *,
    device: str | None = None,
    budget_s: float | None = None,
    may_pull: bool = True,
    progress: Progress = SILENT,
) -> Recommendation:
    """Choose by what is known of a model's files, with estimates where nothing is; `device` names another computer.

    With `budget_s` what may still win is made and measured first, as long as that.
    """
    from slmkit.host import devices
    from slmkit.ops import corpora
    from slmkit.recipes.pick import N_CHUNKS, REPETITIONS
    from slmkit.recipes.recommend import Measuring
    from slmkit.recipes.recommend import recommend as recipe

    measuring = None
    if budget_s is not None:
        spec = BenchSpec(repetitions=REPETITIONS)
        measuring = Measuring(spec, QualitySpec(n_chunks=N_CHUNKS), corpora.evaluation(), budget_s)
    other = devices.device(device) if device else None
    return recipe(reference(ref), wish or Wish(), session(progress, may_pull), device=other, measuring=measuring)
