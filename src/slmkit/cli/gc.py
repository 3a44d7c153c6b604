"""`slmkit gc`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import UsageError

if TYPE_CHECKING:
    from slmkit.recipes.rebuildable import Candidate
    from slmkit.recipes.session import Session
    from slmkit.report.table import Table


def gc(
    refs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REF...]", help="With --rebuildable: which; without it, all F16, BF16 and F32."),
    ] = None,
    rebuildable: Annotated[
        bool,
        typer.Option(
            "--rebuildable",
            help="Drop files that slmkit can make again bit by bit, and keep their recipes for `slmkit get`.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Free what nothing refers to: leftovers of killed runs, files without a manifest, unfinished downloads.

    Shows what would go, and asks. What another process works on stays. Runs of `slmkit bench` are never deleted.
    """
    from slmkit.cli.refs import session

    if refs and not rebuildable:
        raise UsageError(
            "a model is named only with `--rebuildable`", hint=f"to delete it for good: `slmkit rm {refs[0]}`"
        )
    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    if rebuildable:
        _rebuildable(refs or [], here, output, dry_run, yes)
    else:
        _garbage(here, output, dry_run, yes)


def _garbage(here: Session, output: Output, dry_run: bool, yes: bool) -> None:
    from slmkit.ops import gc as op
    from slmkit.registry.garbage import KINDS
    from slmkit.report.tables import Freeable, freeable_table

    items = op.plan(here.registry, here.progress)
    rows = [
        Freeable(KINDS[kind], len(some), sum(item.size_bytes for item in some))
        for kind in KINDS
        if (some := [item for item in items if item.kind == kind])
    ]
    doing = bool(items) and _agreed(freeable_table(rows), output, dry_run, yes)
    freed = op.free(here.registry, items) if doing else None
    values = {
        "dry_run": not doing,
        "items": [{"kind": i.kind, "path": str(i.path), "size_bytes": i.size_bytes} for i in items],
        "freed_bytes": freed.size_bytes if freed else 0,
        "busy": [str(item.path) for item in freed.busy] if freed else [],
    }
    for model in dict.fromkeys(item.model or str(item.path) for item in freed.busy) if freed else ():
        output.say(f"{model}: left alone, another slmkit is working on it")
    planned_bytes = sum(i.size_bytes for i in items) if items else None
    output.record(values, _summary(planned_bytes, freed.size_bytes if freed else None))
    if items and freed is None:
        output.hint("slmkit gc --yes")


def _rebuildable(texts: list[str], here: Session, output: Output, dry_run: bool, yes: bool) -> None:
    from slmkit.backends.llamacpp import engine
    from slmkit.cli.refs import parse_all
    from slmkit.core.quant import FLOATS
    from slmkit.ops import locate
    from slmkit.recipes.rebuildable import candidates, drop
    from slmkit.report.tables import rebuildable_table

    registry = here.registry
    named = [a for ref in parse_all(texts) for a in locate.everything(ref, registry)]
    floats = [a for a in registry.artifacts() if a.variant in FLOATS and a.owned]
    found = candidates([a for a in named if not a.is_checkpoint] if texts else floats, registry, engine.build)
    going = [c.artifact for c in found if c.why_not is None]
    plan = rebuildable_table([(c.artifact, c.why_not) for c in found])
    doing = bool(going) and _agreed(plan, output, dry_run, yes)
    if found and not going and not output.as_json:
        output.table(plan)
    gone, left = drop(going, registry) if doing else ([], [])
    for each in left:
        output.say(f"{each.artifact.ref}: left alone, {each.why_not}")
    values = {
        "dry_run": not doing,
        "items": [_candidate(c) for c in found],
        "dropped": [a.ref for a in gone],
        "freed_bytes": sum(a.size_bytes for a in gone),
        "busy": [each.artifact.ref for each in left],
    }
    freed_bytes = sum(a.size_bytes for a in gone) if doing else None
    output.record(values, _summary(sum(a.size_bytes for a in going) if going else None, freed_bytes))
    if gone:
        output.hint(f"slmkit get {gone[0].ref}")
    elif going:
        output.hint(" ".join(["slmkit gc --rebuildable", *texts, "--yes"]))


def _candidate(candidate: Candidate) -> dict[str, Any]:
    artifact = candidate.artifact
    return {"ref": artifact.ref, "size_bytes": artifact.size_bytes, "why_not": candidate.why_not}


def _agreed(plan: Table, output: Output, dry_run: bool, yes: bool) -> bool:
    """Show the plan, and ask whoever sits at the terminal."""
    if not output.as_json:
        output.table(plan)
    if dry_run or yes:
        return not dry_run
    return sys.stdin.isatty() and not output.as_json and typer.confirm("delete these?", err=True)


def _summary(planned_bytes: int | None, freed_bytes: int | None) -> str:
    from slmkit.core import units

    if freed_bytes is not None:
        return f"freed {units.size(freed_bytes)}"
    return "nothing to free" if planned_bytes is None else f"would free {units.size(planned_bytes)}"
