"""`--strict`: a type that most of the model could not have is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmkit.backends.llamacpp.quantize import DryRun, dry_run
from slmkit.core.artifact import Artifact
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.units import percent
from slmkit.errors import VerdictError
from slmkit.formats.gguf.header import TensorInfo
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.ops.quantize import importance
from slmkit.ops.quantize import source as source_files


def refusals(
    source: Artifact,
    types: Sequence[QuantType],
    spec: QuantizeSpec,
    tensors: Sequence[TensorInfo],
    most_share: float,
    *,
    imatrix_comes: bool = False,
) -> Mapping[QuantType, VerdictError]:
    """Those of `types` of which more than `most_share` of the parameters would fall back to another type.

    Each names the type nearest to what was promised that keeps the promise, by bits per weight: one with more of them
    before one with less. With `imatrix_comes` they are as with an importance matrix that is still to be collected.
    """
    every = list(dict.fromkeys((*types, *_ordinary(tensors))))
    made = source_files.kept(tensors, spec)
    n_params = {name: tensor.n_elements for name, tensor in made.items()}
    requests = [(quant, spec) for quant in every]
    answers = zip(every, dry_run(source.path, requests, weighed=imatrix_comes), strict=True)
    planned = {quant: answer for quant, answer in answers if isinstance(answer, DryRun)}
    outlooks = {quant: _outlook(quant, answer, n_params) for quant, answer in planned.items()}
    need = importance.Need(spec, tensors, imatrix_comes=imatrix_comes)
    keeping = {
        quant: outlooks[quant]
        for quant in _ordinary(tensors)
        if quant in outlooks and outlooks[quant].fallback_share <= most_share
        if need.unmet(quant, planned[quant]) is None
    }

    def refusal(quant: QuantType, outlook: _Outlook) -> VerdictError:
        def distance(other: QuantType) -> tuple[bool, float, float]:
            more = round(keeping[other].bpw - outlook.promised_bpw, 6)
            return more < 0, abs(more), -keeping[other].on_label_share

        nearest = min(keeping, key=distance, default=None)
        options = f"{spec.options} --imatrix auto" if imatrix_comes else spec.options
        command = " ".join(f"slmkit quantize {source.ref} -t {nearest} {options}".split())
        return VerdictError(
            f"{quant} of {source.ref} would not be what it is called: {percent(outlook.fallback_share)} of the "
            f"parameters would fall back to another type, more than {percent(most_share)}",
            hint=f"{nearest} keeps the promise, with {keeping[nearest].bpw:.2f} instead of {outlook.promised_bpw:.2f} "
            f"bits per weight: `{command}`"
            if nearest
            else "no type keeps the promise",
        )

    return {
        quant: refusal(quant, outlooks[quant])
        for quant in types
        if quant in outlooks and outlooks[quant].fallback_share > most_share
    }


def _ordinary(tensors: Sequence[TensorInfo]) -> list[QuantType]:
    """The types that a model made for none of them can be: MXFP4_MOE changes experts alone, and ternary and binary
    types leave nothing of a model that was not trained for them.
    """
    families = {"legacy", "k", "iq"}
    if any("_exps." in tensor.name for tensor in tensors):
        families.add("fp4")
    return [quant for quant in QUANT_TYPES.values() if quant.family in families]


@dataclass(frozen=True)
class _Outlook:
    """What a type would make; `promised_bpw` is what it would have without fallbacks."""

    fallback_share: float
    on_label_share: float
    bpw: float
    promised_bpw: float


def _outlook(quant: QuantType, answer: DryRun, n_params: Mapping[str, int]) -> _Outlook:
    total = sum(n_params[name] for name in answer.types) or 1
    wanted = {fallback.name: fallback.wanted for fallback in answer.fallbacks}

    def bpw(types: Mapping[str, str]) -> float:
        return sum(GGML_TYPES_BY_NAME[kind].bpw * n_params[name] for name, kind in types.items()) / total

    return _Outlook(
        fallback_share=sum(n_params[name] for name in wanted) / total,
        on_label_share=sum(n_params[name] for name, kind in answer.types.items() if kind == quant.base) / total,
        bpw=bpw(answer.types),
        promised_bpw=bpw({**answer.types, **wanted}),
    )
