"""What `quantize` would refuse of a source, which may be hollow: nothing is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import SlmkitError
from slmkit.ops.quantize import importance
from slmkit.ops.quantize.source import check, tensors_of
from slmkit.ops.quantize.strict import refusals


def refused(
    source: Artifact,
    types: Sequence[QuantType],
    spec: QuantizeSpec,
    *,
    strict_share: float | None,
    imatrix_comes: bool,
) -> Mapping[QuantType, SlmkitError]:
    """Those of `types` that would be refused, and why. With `imatrix_comes`, an importance matrix that is still to be
    collected, no more is known than that the spec fits.

    Raises `UsageError` for rules, layers and an importance matrix that do not fit the model.
    """
    tensors = tensors_of(source)
    check(source, types, spec, tensors)
    if imatrix_comes:
        return {}
    importance.check(source.ref, spec, tensors, SILENT)
    strict = {} if strict_share is None else refusals(source, types, spec, tensors, strict_share)
    return {**importance.lacking(source, types, spec, tensors), **strict}
