"""`slmkit show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slmkit.cli import options
from slmkit.cli.output import open_output

if TYPE_CHECKING:
    from slmkit.ops.show import Details


def show(ref: options.Ref, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Architecture, parameters, context, types, tokenizer and provenance of a model."""
    from slmkit.cli.refs import parse, session
    from slmkit.ops import locate
    from slmkit.ops.show import show as op

    output = open_output(as_json=as_json, quiet=quiet)
    here = session(output)
    found = locate.any_of(parse(ref), here.registry, here.progress)
    everything = [_values(op(artifact)) for artifact in found]
    output.record(everything, "\n".join(map(_text, everything)))
    if len(found) == 1 and not found[0].is_checkpoint:
        output.hint(f"slmkit inspect {ref}")


def _values(details: Details) -> dict[str, Any]:
    artifact = details.artifact
    provenance = artifact.provenance
    return {
        "ref": artifact.ref,
        "architecture": details.architecture,
        "n_params": details.n_params,
        "size_bytes": artifact.size_bytes,
        "bpw": details.bpw,
        "context_length": details.context_length,
        "vocabulary": details.vocabulary,
        "tokenizer": details.tokenizer,
        "chat_template": details.chat_template,
        "share_by_type": dict(details.share_by_type),
        "path": str(artifact.path),
        "digest": artifact.digest,
        "made_by": provenance.action,
        "repo": provenance.repo,
        "commit": provenance.commit,
        "parents": list(provenance.parents),
        "parameters": dict(provenance.parameters),
        "tools": dict(provenance.tools),
        "notes": list(provenance.notes),
        "created": artifact.created,
        "elapsed_s": artifact.facts.get("elapsed_s"),
    }


def _text(values: dict[str, Any]) -> str:
    from slmkit.core import units

    shares = ", ".join(f"{name} {units.percent(share)}" for name, share in values["share_by_type"].items())
    lines = {
        "architecture": values["architecture"],
        "parameters": units.count(values["n_params"]),
        "size": units.size(values["size_bytes"]) + (f", {values['bpw']:.2f} bpw" if values["bpw"] else ""),
        "types": f"{shares} (share of parameters)" if shares else None,
        "context": f"{values['context_length']:,} tokens" if values["context_length"] else None,
        "tokenizer": values["tokenizer"],
        "vocabulary": f"{values['vocabulary']:,} tokens" if values["vocabulary"] else None,
        "chat template": "yes" if values["chat_template"] else "no",
        "made by": values["made_by"]
        + "".join(f" {k}={units.parameter(v)}" for k, v in values["parameters"].items() if v),
        "made in": values["elapsed_s"] is not None and units.elapsed(values["elapsed_s"]),
        "from": values["repo"] and f"{values['repo']} at {(values['commit'] or 'unknown')[:12]}",
        "parents": ", ".join(p[:19] for p in values["parents"]),
        "tools": ", ".join(f"{k} {v}" for k, v in values["tools"].items() if k != "features"),
        "notes": "; ".join(values["notes"]),
        "path": values["path"],
        "digest": values["digest"],
    }
    width = max(map(len, lines))
    return "\n".join([values["ref"], *(f"  {k:<{width}}  {v}" for k, v in lines.items() if v)])
