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


def refusals(
    source: Artifact,
    types: Sequence[QuantType],
    spec: QuantizeSpec,
    tensors: Sequence[TensorInfo],
    most_share: float,
) -> Mapping[QuantType, VerdictError]:
    """Those of `types` of which more than `most_share` of the parameters would fall back to another type.

    Each names the type nearest to what was promised that keeps the promise, by bits per weight.
    """
    every = list(dict.fromkeys((*types, *(quant for quant in QUANT_TYPES.values() if not quant.is_float))))
    n_params = {tensor.name: tensor.n_elements for tensor in tensors}
    answers = zip(every, dry_run(source.path, [(quant, spec) for quant in every]), strict=True)
    outlooks = {q: _outlook(q, answer, n_params) for q, answer in answers if isinstance(answer, DryRun)}
    keeping = {q: o for q, o in outlooks.items() if o.fallback_share <= most_share and not o.needs_imatrix}

    def refusal(quant: QuantType, outlook: _Outlook) -> VerdictError:
        def distance(other: QuantType) -> tuple[float, float]:
            return abs(keeping[other].bpw - outlook.promised_bpw), -keeping[other].on_label_share

        nearest = min(keeping, key=distance, default=None)
        return VerdictError(
            f"{quant} of {source.ref} would not be what it is called: {percent(outlook.fallback_share)} of the "
            f"parameters would fall back to another type, more than {percent(most_share)}",
            hint=f"{nearest} keeps the promise, with {keeping[nearest].bpw:.2f} instead of {outlook.promised_bpw:.2f} "
            f"bits per weight: `slmkit quantize {source.ref} -t {nearest}`"
            if nearest
            else "no type keeps the promise",
        )

    return {
        quant: refusal(quant, outlooks[quant])
        for quant in types
        if quant in outlooks and outlooks[quant].fallback_share > most_share
    }


@dataclass(frozen=True)
class _Outlook:
    """What a type would make; `promised_bpw` is what it would have without fallbacks."""

    fallback_share: float
    on_label_share: float
    bpw: float
    promised_bpw: float
    needs_imatrix: bool


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
        needs_imatrix=answer.needs_imatrix,
    )
