"""`slmkit rm`."""

from __future__ import annotations

from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def rm(
    ref: options.Ref,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Delete a variant (org/name:Q4_0) or a whole model (org/name) from the registry.

    Files that slmkit did not make (the Hugging Face cache, adopted files) stay where they are.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.ops import locate

    output = open_output(as_json=as_json, quiet=quiet)
    registry = session(output).registry
    removal = registry.plan_removal(locate.everything(parse(ref), registry))
    if not dry_run:
        registry.remove(removal)
    verb = "would free" if dry_run else "freed"
    lines = [
        f"{a.ref}  {units.size(a.size_bytes) if a.owned else 'unlinked, its files stay'}" for a in removal.artifacts
    ]
    lines += [f"{path}  importance matrices" for path in removal.imatrix_dirs]
    values = {
        "removed": [a.ref for a in removal.artifacts],
        "size_bytes": removal.size_bytes,
        "dry_run": dry_run,
        "kept_files": [str(a.path) for a in removal.links],
    }
    output.record(values, "\n".join([*lines, f"{verb} {units.size(removal.size_bytes)}"]))
