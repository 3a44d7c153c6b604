"""`slmkit diff`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import VerdictError

if TYPE_CHECKING:
    from slmkit.core.diff import Diff, FileSide, ValueDiff

_SHOWN = 40
"""Lines of a template's diff that people get to see."""


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A GGUF: org/name:F16, ./x.gguf; the measure of all errors.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The GGUF to compare with it.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="A row for every tensor that differs.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 3 when anything differs, for scripts; otherwise with 0.")
    ] = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two GGUFs: types, sizes and values of their tensors, metadata, tokenizer, chat template.

    The relative RMS error of a tensor is ||a - b|| / ||a||, of the weights as the engine would read them.
    """
    from slmkit.cli.refs import parse_all, session
    from slmkit.ops import locate
    from slmkit.ops.diff import diff as op
    from slmkit.report.diff import kinds_table, tensors_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    here = session(output)
    one, two = (locate.gguf(ref, here.registry, here.progress) for ref in parse_all([a, b]))
    found = op(one, two, progress=here.progress)
    table = tensors_table(found) if tensors else kinds_table(found)
    if as_json:
        output.record(_values(found), "")
    elif form:
        output.table(table)
    else:
        output.record({}, _head(found))
        if not all(tensor.is_same for tensor in found.tensors):
            output.table(table)
        output.record({}, _tail(found, output))
    if exit_code and not found.is_same:
        raise VerdictError(f"{a} and {b} differ")
    if not tensors and not found.is_same:
        output.hint(f"slmkit diff {a} {b} --tensors")


def _values(found: Diff) -> dict[str, Any]:
    return {
        "same": found.is_same,
        "a": asdict(found.a),
        "b": asdict(found.b),
        "error": found.error,
        "only_in_a": found.only("a"),
        "only_in_b": found.only("b"),
        "kinds": [
            {"kind": k.kind, "n_tensors": len(k.tensors), "n_same": k.n_same, "error": k.error} for k in found.kinds
        ],
        "tensors": [
            {
                "name": t.name,
                "a": t.a and asdict(t.a),
                "b": t.b and asdict(t.b),
                "same": t.is_same,
                "error": t.error,
                "note": t.note or None,
            }
            for t in found.tensors
        ],
        "metadata": [asdict(value) for value in found.metadata],
        "tokenizer": [asdict(value) for value in found.tokenizer],
        "chat_template": list(found.template),
    }


def _head(found: Diff) -> str:
    from slmkit.report.diff import error_text

    lines = [f"A  {_side(found.a)}", f"B  {_side(found.b)}"]
    n_other = sum(not tensor.is_same for tensor in found.tensors)
    only = [f"{len(names)} only in {of.upper()}" for of in ("a", "b") if (names := found.only(of))]
    if n_other:
        parts = [f"{n_other} of {len(found.tensors)} tensors differ", *only]
        lines.append(f"weights: {', '.join(parts)}, relative RMS error {error_text(found.error)}")
    else:
        lines.append(f"weights: the same, all {len(found.tensors)} tensors")
    return "\n".join(lines)


def _side(side: FileSide) -> str:
    from slmkit.core import units

    bpw = f"{side.bpw:.2f} bpw, " if side.bpw else ""
    return (
        f"{side.path}  {units.size(side.size_bytes)}, {bpw}{side.architecture}, {units.count(side.n_params)} parameters"
    )


def _tail(found: Diff, output: Output) -> str:
    lines = _section("metadata", found.metadata, "")
    vocabulary = f", {found.a.vocabulary:,} tokens" if found.a.vocabulary else ""
    lines += _section("tokenizer", found.tokenizer, vocabulary)
    if not found.template:
        return "\n".join([*lines, f"chat template: {'the same' if found.a.has_template else 'none in either'}"])
    lines.append("chat template: differs")
    lines += [f"  {line}" for line in found.template[:_SHOWN]]
    if len(found.template) > _SHOWN:
        lines.append(f"  and {len(found.template) - _SHOWN} lines more, which `--json` shows")
    return "\n".join(lines)


def _section(title: str, values: tuple[ValueDiff, ...], same: str) -> list[str]:
    if not values:
        return [f"{title}: the same{same}"]
    lines = [f"{title}: {len(values)} {'key differs' if len(values) == 1 else 'keys differ'}"]
    for value in values:
        lines.append(f"  {value.key}: {_shown(value.a)} -> {_shown(value.b)}")
        lines += [f"    [{i}] {_shown(x)} -> {_shown(y)}" for i, x, y in value.first]
    return lines


def _shown(value: Any) -> str:
    from slmkit.core import units

    if value is None:
        return units.DASH
    text = value if isinstance(value, str) else repr(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= 80 else f"{text[:77]}..."
