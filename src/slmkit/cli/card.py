"""`slmkit card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output


def card(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A model with all its GGUFs, or one of them.")],
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there: README.md.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="NAME", help="Where it will be published: org/name-GGUF.")
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Instead of the model's own: apache-2.0.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Write the README.md of a GGUF repository: the file to take, the measured table, how to run it, where it is from.

    It has what was measured and what the files say; what is not known is left out, and that is said.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.ops import card as op
    from slmkit.ops import compare
    from slmkit.recipes import verbs
    from slmkit.report.card import card_markdown
    from slmkit.report.table import writing

    output = open_output(quiet=quiet)
    here = session(output)
    artifacts = verbs.artifacts([parse(ref)], here)
    found = op.card(artifacts, compare.compare(artifacts, here.registry), here.registry, license_id=license, repo=repo)
    text = card_markdown(found)
    if target is None:
        output.document(text)
    else:
        with writing(target):
            target.write_text(text, encoding="utf-8")
    for remark in found.remarks:
        output.warn(remark)
    for command in found.comparison.missing:
        output.hint(command)
    if target is not None:
        output.say(f"written: {target}")
