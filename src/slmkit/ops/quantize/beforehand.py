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
    """Those of `types` that would be refused, and why; with `imatrix_comes` before an importance matrix is collected.

    Raises `UsageError` for rules, layers and an importance matrix that do not fit the model.
    """
    tensors = tensors_of(source)
    check(source, types, spec, tensors)
    importance.check(source.ref, spec, tensors, SILENT)
    lacking = importance.lacking(source, types, spec, tensors, imatrix_comes=imatrix_comes)
    if strict_share is None:
        return lacking
    return {**lacking, **refusals(source, types, spec, tensors, strict_share, imatrix_comes=imatrix_comes)}
