"""Whether an importance matrix is there where a type needs one, and whether it is of this model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from slmkit.backends.llamacpp.quantize import DryRun, dry_run, imatrix_needed
from slmkit.backends.llamacpp.quantize_log import OUTPUT, requires_imatrix
from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import ImatrixNeededError, SlmkitError, UsageError
from slmkit.formats.gguf.header import TensorInfo
from slmkit.ops.quantize import source as source_files


def lacking(
    source: Artifact,
    types: Sequence[QuantType],
    spec: QuantizeSpec,
    tensors: Sequence[TensorInfo],
    *,
    imatrix_comes: bool = False,
) -> dict[QuantType, SlmkitError]:
    """Those of `types` that cannot be made for want of importance; raises `ImatrixError`.

    With `imatrix_comes` an importance matrix is still to be collected: of all but output and embedding.
    """
    asked = {rule.type for rule in spec.rules} | {spec.output_type, spec.embedding_type}
    by_option = any(kind and kind.startswith("IQ") for kind in asked)
    doubtful = [quant for quant in types if by_option or quant.may_need_imatrix]
    if not doubtful:
        return {}
    need = Need(spec, tensors, imatrix_comes=imatrix_comes)
    requests = [(quant, spec) for quant in doubtful]
    answers = zip(doubtful, dry_run(source.path, requests, weighed=imatrix_comes), strict=True)
    found = {quant: need.unmet(quant, answer) for quant, answer in answers if isinstance(answer, DryRun)}
    return {quant: error for quant, error in found.items() if error}


class Need:
    """What the types of tensors need of the importance matrix of `spec`, if it has one, or of one that comes, of which
    only that is known which tensors will be in it; raises `ImatrixError`.
    """

    def __init__(self, spec: QuantizeSpec, tensors: Sequence[TensorInfo], *, imatrix_comes: bool = False) -> None:
        self._spec = spec
        self._comes = imatrix_comes
        self._kept = source_files.kept(tensors, spec)
        self._sizes: dict[str, int] = {}
        if spec.imatrix is not None:
            from slmkit.formats.imatrix import read  # loads numpy

            self._sizes = {name: entry.sums.size for name, entry in read(spec.imatrix.path).entries.items()}

    def unmet(self, quant: QuantType, answer: DryRun) -> ImatrixNeededError | None:
        """The error for the first tensor that could not be made."""
        for name, kind in answer.types.items():
            own = self._kept[name]
            if kind != own.type.name and requires_imatrix(name, kind, quant.ftype) and not self._is_known(own):
                return self._error(name, kind, quant)
        has_any = self._spec.imatrix or self._comes
        return imatrix_needed(quant) if answer.needs_imatrix and not has_any else None

    def _is_known(self, tensor: TensorInfo) -> bool:
        if self._comes:
            return tensor.name not in OUTPUT
        size = self._sizes.get(tensor.name)
        # of the embedding there may be the output's, which then does not count
        return size is not None and (tensor.name != "token_embd.weight" or size == tensor.shape[0])

    def _error(self, name: str, kind: str, quant: QuantType) -> ImatrixNeededError:
        option = self._option(name, kind)
        if option is None and not self._spec.imatrix and name not in OUTPUT:
            return imatrix_needed(quant)
        error = f"{name} needs an importance matrix to become {kind}, as {option or f'`-t {quant}`'} wants it"
        if self._spec.imatrix:
            error += f"; {self._spec.imatrix.name} says nothing of it"
        hint = "let it be made: `--imatrix auto`; or take a larger type"
        if name in OUTPUT:
            larger = "--embedding-type Q4_K" if name == "token_embd.weight" else "--output-type Q6_K"
            hint = f"slmkit collects none of output and embedding: give it a larger type, `{larger}`"
        elif self._spec.imatrix:
            hint = f"give it a larger type: `--rule '{name.rpartition('.')[0].rpartition('.')[2]}=Q4_K'`"
        return ImatrixNeededError(error, hint=hint)

    def _option(self, name: str, kind: str) -> str | None:
        """That which gave a tensor its type, when it is not the type of the file."""
        spec = self._spec
        if name == "token_embd.weight" and spec.embedding_type == kind:
            return f"`--embedding-type {kind}`"
        if name in OUTPUT and spec.output_type == kind:
            return f"`--output-type {kind}`"
        fitting = next((rule for rule in spec.rules if re.search(rule.pattern, name)), None)
        if fitting and fitting.type == kind:
            return f"`--rule '{fitting.pattern}={kind}'`"
        return "`--pure`" if spec.pure else None


def check(ref: str, spec: QuantizeSpec, tensors: Sequence[TensorInfo], progress: Progress) -> None:
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
                hint=f"make one: `slmkit imatrix {ref}`",
            )
    if not known:
        raise UsageError(
            f"{spec.imatrix.path} is of another model: it knows none of the {len(matrices)} matrices of {ref}",
            hint=f"make one: `slmkit imatrix {ref}`",
        )
    if len(known) < len(matrices):
        missing = sorted(matrices.keys() - known)
        progress.warn(
            f"{spec.imatrix.name} says nothing of {len(missing)} of {len(matrices)} matrices: {', '.join(missing[:3])}"
        )
