"""`slmkit list`."""

from __future__ import annotations

from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def list_models(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also what `slmkit gc --rebuildable` dropped.")
    ] = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What is on this machine."""
    from slmkit.registry import dropped
    from slmkit.registry.store import Registry
    from slmkit.report.tables import artifacts_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    registry = Registry()
    artifacts = registry.artifacts()
    recipes = dropped.all_of(registry.home) if everything else []
    output.table(artifacts_table(artifacts, recipes))
    if not artifacts and not recipes:
        output.say(f"nothing in {registry.home} yet")
        output.hint("slmkit pull smollm2-135m, or `slmkit demo`")
