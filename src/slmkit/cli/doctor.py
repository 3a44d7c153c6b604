"""`slmkit doctor`."""

from __future__ import annotations

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import VerdictError

_MARKS = {True: "ok", False: "FAIL", None: "note"}


def doctor(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Check this machine: CPU, engine (with a real decode), memory, disk, cache, Hub."""
    from slmkit.cli.refs import session
    from slmkit.ops.doctor import examine
    from slmkit.report.table import Cell, Column, Table

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    findings = examine(here.registry, here.progress)
    columns = (
        Column("ok", "", right=False),
        Column("what", "check", right=False),
        Column("found", "found", right=False),
        Column("hint", "what to do", right=False),
    )
    rows = tuple(
        (Cell(_MARKS[f.ok], f.ok), Cell(f.what, f.what), Cell(f.found, f.found), Cell(f.hint or "", f.hint))
        for f in findings
    )
    output.table(Table(columns, rows, "doctor"))
    failed = [f.what for f in findings if f.ok is False]
    if failed:
        raise VerdictError(f"not well: {', '.join(failed)}", hint="the table's last column says what to do")
