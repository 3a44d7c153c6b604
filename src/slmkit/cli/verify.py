"""`slmkit verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import DamagedError


def verify(
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="One model; without it, all of them.")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read every file again: sizes, structure, sha256. Exit code 3 when anything is damaged."""
    from slmkit.cli.refs import parse, session
    from slmkit.ops import locate
    from slmkit.registry.verify import verify as check

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    artifacts = locate.everything(parse(ref), here.registry) if ref else here.registry.artifacts()
    damage = [d for artifact in artifacts for d in check(artifact, here.progress)]
    sound = len(artifacts) - len({d.ref for d in damage})
    lines = [f"{d.ref}: {d.path} {d.what}" for d in damage]
    values = {
        "checked": [a.ref for a in artifacts],
        "damaged": [{"ref": d.ref, "path": str(d.path), "what": d.what} for d in damage],
    }
    output.record(values, "\n".join([*lines, f"{sound} of {len(artifacts)} sound"]))
    if damage:
        first = damage[0].ref
        raise DamagedError(
            f"damaged: {', '.join(dict.fromkeys(d.ref for d in damage))}",
            hint=f"delete and make again: `slmkit rm {first}`, then what made it",
        )
