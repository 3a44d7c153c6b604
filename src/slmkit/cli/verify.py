"""`slmkit verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import DamagedError, UsageError, VerdictError

if TYPE_CHECKING:
    from slmkit.core.artifact import Artifact
    from slmkit.recipes.rederive import Rederived
    from slmkit.recipes.session import Session


def verify(
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="One model; without it, all of them.")] = None,
    rederive: Annotated[
        bool,
        typer.Option(
            "--rederive", help="Also make each again from its parents, in a temporary place, and compare the bytes."
        ),
    ] = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read every file again: sizes, structure, sha256. Exit code 3 when anything is damaged, or not rederived.

    Of a model that is named as a whole the importance matrices are read, too.
    """
    from slmkit.cli.refs import parse, session
    from slmkit.ops import locate
    from slmkit.registry.unchanged import collect_again
    from slmkit.registry.verify import verify as check

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    wanted = parse(ref) if ref else None
    artifacts = locate.everything(wanted, here.registry) if wanted else here.registry.artifacts()
    if threads and not rederive:
        raise UsageError("`--threads` is for `--rederive`", hint="leave it out")
    files = [*artifacts, *locate.importance(wanted, here.registry)]
    damage = [d for artifact in files for d in check(artifact, here.progress)]
    sound = len(files) - len({d.ref for d in damage})
    lines = [f"{d.ref}: {d.path} {d.what}" for d in damage]
    values = {
        "checked": [a.ref for a in files],
        "damaged": [{"ref": d.ref, "path": str(d.path), "what": d.what} for d in damage],
    }
    lines.append(f"{sound} of {len(files)} sound")
    answers = _rederived(artifacts, here, threads, bool(ref)) if rederive else []
    if rederive:
        values["rederived"] = [asdict(answer) for answer in answers]
        lines += [_line(answer) for answer in answers]
    output.record(values, "\n".join(lines))
    if damage:
        first = next(artifact for artifact in files if artifact.ref == damage[0].ref)
        hint = f"delete and make again: `slmkit rm {first.ref}`, then what made it"
        if first.provenance.action == "imatrix":
            hint = collect_again(first.provenance.parameters["source"], first.variant or "")
        raise DamagedError(f"damaged: {', '.join(dict.fromkeys(d.ref for d in damage))}", hint=hint)
    if no := [answer for answer in answers if answer.answer != "same"]:
        raise VerdictError(f"not rederived: {', '.join(answer.ref for answer in no)}", hint="the rows above say why")


def _rederived(artifacts: list[Artifact], here: Session, threads: int | None, named: bool) -> list[Rederived]:
    """Of a whole registry or model only what was made here is asked; of one artifact that is named, it."""
    from slmkit.recipes.rederive import rederive
    from slmkit.recipes.remake import MADE_BY

    made = [a for a in artifacts if a.provenance.action in MADE_BY]
    return list(rederive(made or (artifacts if named else []), here, n_threads=threads))


def _line(answer: Rederived) -> str:
    what = {
        "same": "made again, the same bytes",
        "differs": "made again, other bytes",
        "cannot": "cannot be made again",
    }
    text = f"{answer.ref}: {what[answer.answer]}" + (f": {answer.why}" if answer.why else "")
    return text + "".join(f"\n  other tools: {tool}" for tool in answer.other_tools)
