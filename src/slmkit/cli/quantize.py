"""`slmkit quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmkit.cli import options
from slmkit.cli.output import open_output
from slmkit.errors import SlmkitError, SomeFailedError, UsageError, VerdictError

if TYPE_CHECKING:
    from slmkit.core.quant import QuantType
    from slmkit.core.target import TargetSpec
    from slmkit.ops.quantize import QuantizeReport
    from slmkit.report.tables import Quantized

_HOW = "How it is quantized"


def quantize(
    ref: options.Ref,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", metavar="TYPE", help="Q4_0, Q5_1, Q8_0, ...: several times or with commas."),
    ] = None,
    target_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Instead of a type: the best mix of types in a file of 1.5GiB, say."),
    ] = None,
    target_bpw: Annotated[
        str | None, typer.Option(metavar="BPW", help="The same for bits per weight over all tensors: 4.5, say.")
    ] = None,
    target_reduction: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="The same for what is saved of the float file: 70%, say.")
    ] = None,
    strict: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            min=0,
            max=100,
            help="Refuse, before computing, a type of which more of the parameters would fall back to another. "
            "Exit code 3, whatever else was made; 1 when something failed.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The variant's name after its type: `lean` makes Q4_0-lean.")
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(
            metavar="auto|none|FILE",
            help="Weigh errors by an importance matrix: the model's own, collected first where there is none, or a "
            "file. The smallest types need one. By default none, and with a target the model's own if it has one.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=TYPE",
            help="A type for the tensors in whose name the regular expression is found: 'ffn_down=Q6_K'. "
            "Several times; the first that fits decides. Recipes take rules too.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="More rules, one a line; # begins a comment.", rich_help_panel=_HOW),
    ] = None,
    output_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Type of output.weight.", rich_help_panel=_HOW)
    ] = None,
    embedding_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Type of token_embd.weight.", rich_help_panel=_HOW)
    ] = None,
    pure: Annotated[
        bool, typer.Option("--pure", help="One type for all matrices, no mixture.", rich_help_panel=_HOW)
    ] = False,
    leave_output: Annotated[
        bool, typer.Option("--leave-output", help="Keep output.weight, if there is one.", rich_help_panel=_HOW)
    ] = False,
    prune_layers: Annotated[
        str | None, typer.Option(metavar="LAYERS", help="Leave out layers: 3,5-8.", rich_help_panel=_HOW)
    ] = None,
    override_kv: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=KIND:VALUE",
            help="Put a metadata value in the place of the source's; KIND is int, float, bool or str. Several times.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize",
            help="Also take a source that is quantized already; the result is marked.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    keep_split: Annotated[
        bool, typer.Option("--keep-split", help="As many shards as the source has.", rich_help_panel=_HOW)
    ] = False,
    max_buffer: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What is held of a tensor at a time, at most: 512MiB.", rich_help_panel=_HOW),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads; by default one for each physical core."),
    ] = None,
    no_pull: options.NoPull = False,
    force: options.Force = False,
    form: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make smaller GGUFs of a model, pulling and converting it first where that is missing.

    Several types are made in one pass where that saves time. Each file is loaded and decodes a few tokens before it is
    called good. What is there already is not made again.

    With a target the error of each tensor in each type is measured and the best mix that fits is made, weighed by the
    model's newest importance matrix (`slmkit imatrix`).
    """
    from slmkit.cli.refs import imatrix_of, parse, session
    from slmkit.core.quant import quant_types
    from slmkit.core.quantize import Override, QuantizeSpec, parse_layers
    from slmkit.core.units import parse_size
    from slmkit.formats.gguf.types import weight_type
    from slmkit.formats.tensor_rules import parse_rule, read_rules
    from slmkit.recipes import verbs
    from slmkit.recipes.target import quantize_to_target
    from slmkit.report.tables import quantize_table

    output = open_output(as_json=as_json, quiet=quiet, form=form)
    here = session(output, may_pull=not no_pull)
    target = _target(types, size=target_size, bpw=target_bpw, reduction=target_reduction)
    spec = QuantizeSpec(
        rules=(*map(parse_rule, rule or ()), *(read_rules(rules) if rules else ())),
        output_type=output_type and weight_type(output_type).name,
        embedding_type=embedding_type and weight_type(embedding_type).name,
        pure=pure,
        leave_output=leave_output,
        keep_split=keep_split,
        prune_layers=parse_layers(prune_layers) if prune_layers else (),
        overrides=tuple(map(Override.parse, override_kv or ())),
        allow_requantize=allow_requantize,
        max_buffer_bytes=parse_size(max_buffer) if max_buffer else None,
    )
    if target is not None:
        if spec != QuantizeSpec() or strict is not None:
            raise UsageError(
                "a target decides the type of every tensor: it takes no rule, type or other option of these"
            )
        weighed = "newest" if imatrix is None else imatrix_of(imatrix)
        report = quantize_to_target(
            parse(ref), target, here, name=name, imatrix=weighed, force=force, n_threads=threads
        )
        output.table(quantize_table([_row(report)], notes=report.notes))
        output.hint(f"slmkit bench {report.artifact.model}")
        return
    wanted = quant_types(types or ())
    reports: list[QuantizeReport] = []
    failures: dict[str, SlmkitError] = {}

    def failed(quant: QuantType, error: SlmkitError) -> None:
        failures[quant.name] = error

    made = verbs.quantize(
        parse(ref),
        wanted,
        here,
        spec=spec,
        name=name,
        imatrix=imatrix_of(imatrix),
        strict_share=None if strict is None else strict / 100,
        force=force,
        n_threads=threads,
        on_failure=failed,
    )
    with closing(made):
        reports.extend(made)
    if failures and not reports:  # nothing to show beside the reasons
        raise _failed(failures, len(wanted))
    output.table(quantize_table([_row(report) for report in reports], notes=[n for r in reports for n in r.notes]))
    if failures:
        raise _failed(failures, len(wanted))
    output.hint(f"slmkit bench {reports[0].artifact.model}")


def _failed(failures: Mapping[str, SlmkitError], n_wanted: int) -> SlmkitError:
    """All reasons as one error: of their own kind where nothing was made and they have one, or where each is a no."""
    errors = list(failures.values())
    if n_wanted == 1:
        return errors[0]
    hint = "; ".join(dict.fromkeys(error.hint for error in errors if error.hint)) or None
    reasons = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
    kinds = {type(error) for error in errors}
    is_one = len(kinds) == 1 and (len(failures) == n_wanted or kinds == {VerdictError})
    kind = kinds.pop() if is_one else SomeFailedError
    return kind(f"{len(failures)} of {n_wanted} types could not be made: {reasons}", hint=hint)


def _target(types: list[str] | None, **given: str | None) -> TargetSpec | None:
    """The one target that was given; raises `UsageError` unless that, or types, was."""
    from slmkit.core.target import TargetSpec, Unit

    every: list[tuple[Unit, str | None]] = [(unit, given[unit]) for unit in ("size", "bpw", "reduction")]
    chosen = [(unit, text) for unit, text in every if text is not None]
    if bool(types) + len(chosen) != 1:
        raise UsageError(
            "one of `--type`, `--target-size`, `--target-bpw` and `--target-reduction` is wanted",
            hint="`slmkit quantize REF -t Q4_0`, or `slmkit quantize REF --target-bpw 4.5`",
        )
    return TargetSpec.parse(*chosen[0]) if chosen else None


def _row(report: QuantizeReport) -> Quantized:
    from slmkit.report.tables import Quantized

    made = report.artifact
    return Quantized(
        ref=made.ref,
        variant=made.variant or "",
        before_bytes=report.source.size_bytes,
        after_bytes=made.size_bytes,
        bpw=made.facts.get("bpw"),
        on_label_share=made.facts.get("on_label_share"),
        fallback_share=made.facts.get("fallback_share"),
        fresh=report.fresh,
    )
