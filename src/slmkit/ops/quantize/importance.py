"""Whether an importance matrix is there where a type needs one, and whether it is of this model."""

from __future__ import annotations

from collections.abc import Sequence

from slmkit.backends.llamacpp.quantize import DryRun, dry_run, imatrix_needed
from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import SlmkitError, UsageError
from slmkit.formats.gguf.header import TensorInfo


def lacking(source: Artifact, types: Sequence[QuantType], spec: QuantizeSpec) -> dict[QuantType, SlmkitError]:
    """Those of `types` that the engine refuses without an importance matrix, where `spec` has none."""
    by_rule = any(rule.type.startswith("IQ") for rule in spec.rules)
    doubtful = [quant for quant in types if by_rule or quant.family == "iq" or quant.name == "Q2_K_S"]
    if spec.imatrix or not doubtful:
        return {}
    answers = zip(doubtful, dry_run(source.path, [(quant, spec) for quant in doubtful]), strict=True)
    return {quant: imatrix_needed(quant) for quant, answer in answers if _needs(answer)}


def _needs(answer: object) -> bool:
    return isinstance(answer, DryRun) and answer.needs_imatrix


def check(source: Artifact, spec: QuantizeSpec, tensors: Sequence[TensorInfo], progress: Progress) -> None:
    """Raise `UsageError` for an importance matrix of another model, warn where it lacks matrices; `ImatrixError`."""
    if spec.imatrix is None:
        return
    from slmkit.formats.imatrix import read  # loads numpy

    entries = read(spec.imatrix.path).entries
    matrices = {t.name: t for t in tensors if len(t.shape) > 1 and t.name.startswith("blk.")}
    known = matrices.keys() & entries.keys()
    for name in sorted(known):
        row, *rest = matrices[name].shape
        n_values = row * (rest[1] if len(rest) > 1 else 1)
        if (n_found := entries[name].sums.size) != n_values:
            raise UsageError(
                f"{spec.imatrix.path} is of another model: {name} has {n_found} columns in it, not {n_values}",
                hint=f"make one: `slmkit imatrix {source.ref}`",
            )
    if not known:
        raise UsageError(
            f"{spec.imatrix.path} is of another model: it knows none of the {len(matrices)} matrices of {source.ref}",
            hint=f"make one: `slmkit imatrix {source.ref}`",
        )
    if len(known) < len(matrices):
        missing = sorted(matrices.keys() - known)
        progress.warn(
            f"{spec.imatrix.name} says nothing of {len(missing)} of {len(matrices)} matrices: {', '.join(missing[:3])}"
        )
