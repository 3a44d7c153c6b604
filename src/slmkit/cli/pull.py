"""`slmkit pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def pull(
    ref: options.Ref,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; the same as org/name@revision.")] = None,
    include: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Also get files that match.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave out files that match.")] = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Get a model from the Hugging Face Hub: a checkpoint, or one quant of a GGUF repository.

    Files go to the Hugging Face cache, where other tools find them too. An interrupted download goes on where it
    stopped.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.recipes import verbs

    output = open_output(as_json=as_json, quiet=quiet)
    artifact = verbs.pull(
        parse(ref), session(output, offline=offline), revision=revision, include=include or (), exclude=exclude or ()
    )
    values = {
        "ref": artifact.ref,
        "commit": artifact.provenance.commit,
        "size_bytes": artifact.size_bytes,
        "path": str(artifact.path),
        "digest": artifact.digest,
        "files": [f.name for f in artifact.files],
    }
    commit = (artifact.provenance.commit or "")[:12]
    output.record(values, f"{artifact.ref}  {units.size(artifact.size_bytes)}  commit {commit}\n{artifact.path}")
    output.hint(f"slmkit quantize {artifact.ref} -t Q4_0" if artifact.is_checkpoint else f"slmkit bench {artifact.ref}")
