"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, errors as JSON on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not use the network (HF_HUB_OFFLINE=1 does the same).")]
NoPull = Annotated[bool, typer.Option("--no-pull", help="Fail instead of downloading what is missing.")]
NoHub = Annotated[bool, typer.Option("--no-pull", help="Do not ask the Hub for what is missing.")]
Force = Annotated[bool, typer.Option("--force", help="Make it again although it is there already.")]
Format = Annotated[
    str | None, typer.Option("--format", metavar="md|csv|json|jsonl|html", help="Print the table in this form.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, help="Threads; by default one for each physical core.")
]
Ref = Annotated[
    str, typer.Argument(metavar="REF", help="A model reference, such as org/name, org/name:Q4_0, ./x.gguf.")
]
Refs = Annotated[list[str], typer.Argument(metavar="REF...", help="Model references; org/name means all its variants.")]
