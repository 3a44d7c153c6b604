"""`slmkit get`."""

from __future__ import annotations

from slmkit.cli import options
from slmkit.cli.output import open_output


def get(
    ref: options.Ref,
    threads: options.Threads = None,
    no_pull: options.NoPull = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make again what `slmkit gc --rebuildable` dropped, and get again what else is gone, with the same bytes.

    What it was made from comes first, from the Hub's commit if need be. Other bytes than before are an error, and are
    not kept.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.recipes.get import get as run

    output = open_output(as_json=as_json, quiet=quiet)
    found = list(run(parse(ref), session(output, may_pull=not no_pull), n_threads=threads))
    values = [
        {
            "ref": got.artifact.ref,
            "path": str(got.artifact.path),
            "digest": got.artifact.digest,
            "size_bytes": got.artifact.size_bytes,
            "fresh": got.fresh,
        }
        for got in found
    ]
    lines = [
        f"{g.artifact.ref}  {units.size(g.artifact.size_bytes)}  "
        + (f"here again, with the same {g.artifact.digest[:19]}" if g.fresh else "is here")
        for g in found
    ]
    output.record(values, "\n".join(lines))
