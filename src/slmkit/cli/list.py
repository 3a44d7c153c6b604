"""`slmkit list`."""

from __future__ import annotations

from slmkit.cli import options
from slmkit.cli.output import open_output


def list_models(form: options.Format = None, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """What is on this machine."""
    from slmkit.registry.store import Registry
    from slmkit.report.tables import artifacts_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    registry = Registry()
    artifacts = registry.artifacts()
    output.table(artifacts_table(artifacts))
    if not artifacts:
        output.say(f"nothing in {registry.home} yet")
        output.hint("slmkit pull smollm2-135m, or `slmkit demo`")
