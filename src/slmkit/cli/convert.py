"""`slmkit convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slmkit.cli import options
from slmkit.cli.output import Output, open_output
from slmkit.errors import UsageError, VerdictError

if TYPE_CHECKING:
    from slmkit.ops.convert.check import ConvertCheck


def convert(
    ref: options.Ref,
    type_: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="f16|bf16|f32|q8_0|tq1_0|tq2_0|auto",
            help="Type of the weights. tq1_0, tq2_0: for ternary models; auto: the checkpoint's own 16-bit type.",
        ),
    ] = "f16",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here instead of into the registry.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only say whether it converts, to what and how large; no weight is downloaded. Exit code 3 for no.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Load the finished file and decode with it before it counts as made."
        ),
    ] = True,
    pre: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="llama.cpp's name for the way the tokenizer splits text, where it is not recognized."
        ),
    ] = None,
    split_max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Shards with at most this much weights: 500M, 2G (powers of 1000)."),
    ] = None,
    converter: Annotated[
        str, typer.Option(metavar="slmkit|upstream", help="upstream is llama.cpp's own converter, if you have it.")
    ] = "slmkit",
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            "--llama-cpp", metavar="DIR", help="The llama.cpp checkout of `--converter upstream` (or LLAMA_CPP_DIR)."
        ),
    ] = None,
    no_pull: options.NoPull = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a checkpoint (safetensors) into a GGUF, pulling it first when it is not here."""
    from slmkit.cli.refs import parse, session
    from slmkit.core import units
    from slmkit.core.convert import Converter, ConvertSpec, split_size
    from slmkit.recipes import foresight, verbs

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output, may_pull=not no_pull)
    if check:
        if out or force or split_max_size or converter != "slmkit":
            raise UsageError("`--check` makes nothing", hint="leave out the options that say how to make it")
        _tell(foresight.check_convert(parse(ref), here, pre=pre), output)
        return
    split_max_bytes = None if split_max_size is None else split_size(split_max_size)
    spec = ConvertSpec(pre, split_max_bytes, cast(Converter, converter), llama_cpp, verify)  # it checks the name
    artifact = verbs.convert(parse(ref), here, outtype=type_, spec=spec, target=out, force=force)
    facts = artifact.facts
    values = {
        "ref": artifact.ref if out is None else None,
        "path": str(artifact.path),
        "files": [file.name for file in artifact.files],
        "size_bytes": artifact.size_bytes,
        "digest": artifact.digest,
        **facts,
    }
    name = artifact.ref if out is None else str(artifact.path)
    shards = f", {len(artifact.files)} shards" if len(artifact.files) > 1 else ""
    output.record(
        values,
        f"{name}  {units.size(artifact.size_bytes)}  {facts['architecture']}, {units.count(facts['n_params'])} "
        f"parameters in {facts['n_tensors']} tensors, {facts['bpw']:.2f} bpw{shards}",
    )
    if out is None:
        output.hint(f"slmkit quantize {artifact.model} -t Q4_0,Q5_1,Q8_0")


def _tell(found: ConvertCheck, output: Output) -> None:
    """The answer on stdout; raises `VerdictError` when it is no."""
    refusal = found.refusal
    values: dict[str, Any] = {
        "ref": found.ref,
        "converts": found.converts,
        "hf_architecture": found.hf_architecture,
        "architecture": found.architecture,
        "n_params": found.n_params,
        "n_tensors": found.n_tensors,
        "context_length": found.context_length,
        "tokenizer": found.tokenizer,
        "auto": found.auto,
        "size_bytes": dict(found.size_bytes),
        "remarks": list(found.remarks),
        "reason": refusal and {"error": refusal.code, "message": refusal.message, "hint": refusal.hint},
    }
    if refusal:
        output.record(values, f"{found.ref} does not convert: {refusal.message}")
        raise VerdictError(f"{found.ref} does not convert ({refusal.code})", hint=refusal.hint)
    output.record(values, _text(found))


def _text(found: ConvertCheck) -> str:
    from slmkit.core import units

    context = f", context {found.context_length:,} tokens" if found.context_length else ""
    lines = [
        f"{found.ref} converts: {found.hf_architecture} to {found.architecture}, {units.count(found.n_params)} "
        f"parameters in {found.n_tensors} tensors{context}, tokenizer {found.tokenizer}"
    ]
    for name, size_bytes in found.size_bytes.items():
        what = f"  {name:<6} {units.size(size_bytes):>10}  {size_bytes:>15,} bytes"
        lines.append(what + ("  auto" if name == found.auto else ""))
    return "\n".join([*lines, *(f"  {remark}" for remark in found.remarks)])
