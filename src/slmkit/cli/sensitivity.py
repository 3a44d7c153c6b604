"""`slmkit quality --sensitivity`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from slmkit.cli.output import Output
from slmkit.core.quality import Corpus, QualitySpec
from slmkit.core.refs import ModelRef
from slmkit.errors import SomeFailedError, UsageError
from slmkit.recipes.session import Session


def show(
    refs: Sequence[ModelRef],
    kind: str,
    corpus: Corpus,
    spec: QualitySpec,
    session: Session,
    output: Output,
    recipe: Path | None,
    plot: Path | None,
    report: Path | None,
    *,
    resume: bool,
    clash: Sequence[str],
) -> None:
    """Measure one model, print the table, write what was asked for. `clash` are options that mean nothing here.

    Raises `UsageError` for several models and for what clashes, `SomeFailedError` when a group could not be measured.
    """
    from slmkit.core.quant import quant_type
    from slmkit.recipes.sensitivity import sensitivity, write_recipe
    from slmkit.report import files, plots
    from slmkit.report.html import sensitivity_page
    from slmkit.report.sensitivity import sensitivity_record, sensitivity_table

    if clash:
        raise UsageError(f"`--sensitivity` does not go with `{clash[0]}`: it makes and measures files of its own")
    if len(refs) != 1:
        raise UsageError("`--sensitivity` takes one model", hint=f"`slmkit quality {refs[0]} --sensitivity {kind}`")
    if plot:
        plots.check_plot(plot)
    found = sensitivity(refs[0], quant_type(kind), corpus, spec, session, keep_costly=recipe is not None, resume=resume)
    if output.as_json:
        output.record(sensitivity_record(found), "")
    elif output.form == "html":
        output.document(sensitivity_page(found))
    else:
        output.table(sensitivity_table(found))
    if recipe:
        write_recipe(found, recipe)
        output.say(f"written: {recipe}")
    if plot:
        plots.sensitivity_bars(found, plot)
        output.say(f"drawn: {plot}")
    if report:
        files.write_runs([found], report)
        output.say(f"written: {report}")
    if failed := [cost.group.name for cost in found.costs if cost.failure]:
        raise SomeFailedError(f"{len(failed)} of {len(found.costs)} groups could not be measured: {', '.join(failed)}")
    if recipe and recipe.suffix.lower() == ".toml":
        output.hint(f"slmkit recipe run {shlex.quote(str(recipe))}")
    elif recipe:
        model = found.ref.rpartition(":")[0] or found.ref
        output.hint(f"slmkit quantize {shlex.quote(model)} -t {found.type} --rules {shlex.quote(str(recipe))}")
