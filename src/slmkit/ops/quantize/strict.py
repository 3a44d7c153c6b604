"""`--strict`: a type that most of the model could not have is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slmkit.backends.llamacpp.quantize import DryRun, dry_run
from slmkit.core.artifact import Artifact
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.units import percent
from slmkit.errors import EngineError, VerdictError
from slmkit.formats.gguf.header import TensorInfo
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME


def refusals(
    source: Artifact,
    types: Sequence[QuantType],
    spec: QuantizeSpec,
    tensors: Sequence[TensorInfo],
    most_share: float,
) -> Mapping[QuantType, VerdictError]:
    """Those of `types` of which more than `most_share` of the parameters would fall back to another type."""
    every = list(dict.fromkeys((*types, *(quant for quant in QUANT_TYPES.values() if not quant.is_float))))
    answers = dict(zip(every, dry_run(source.path, [(quant, spec) for quant in every]), strict=True))
    n_params = {tensor.name: tensor.n_elements for tensor in tensors}
    shares = {
        quant: sum(n_params[f.name] for f in answer.fallbacks) / (sum(n_params.values()) or 1)
        for quant, answer in answers.items()
        if isinstance(answer, DryRun)
    }
    keeping = [q for q, share in shares.items() if share <= most_share and not _needs_imatrix(answers[q])]
    return {
        quant: _refusal(source, quant, shares[quant], most_share, keeping)
        for quant in types
        if shares.get(quant, 0) > most_share
    }


def _needs_imatrix(answer: DryRun | EngineError) -> bool:
    return isinstance(answer, DryRun) and answer.needs_imatrix


def _refusal(
    source: Artifact, quant: QuantType, share: float, most_share: float, keeping: Sequence[QuantType]
) -> VerdictError:
    wanted = GGML_TYPES_BY_NAME[quant.base].bpw
    nearest = min(keeping, key=lambda q: abs(GGML_TYPES_BY_NAME[q.base].bpw - wanted), default=None)
    try_it = f"{nearest} keeps the promise: `slmkit quantize {source.ref} -t {nearest}`"
    return VerdictError(
        f"{quant} of {source.ref} would not be what it is called: {percent(share)} of the parameters would fall back "
        f"to another type, more than {percent(most_share)}",
        hint=try_it if nearest else "no type keeps the promise",
    )
