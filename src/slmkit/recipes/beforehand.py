"""What `quantize` would refuse of a float file that is not made yet: asked of its header, before anything is pulled."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import SlmkitError
from slmkit.ops.describe import now
from slmkit.recipes.foresight import unread
from slmkit.recipes.session import Session
from slmkit.recipes.spared import known_imatrix
from slmkit.recipes.verbs import DEFAULT_FLOAT

if TYPE_CHECKING:
    from slmkit.ops.quantize import QuantizeReport


def refused(
    ref: ModelRef,
    types: Sequence[QuantType],
    session: Session,
    *,
    spec: QuantizeSpec,
    strict_share: float | None,
    imatrix: Path | Literal["auto"] | None,
    convert_spec: ConvertSpec,
) -> Mapping[QuantType, SlmkitError]:
    """Those of `types` that would be refused; none where that cannot be known, or is not worth a look.

    Raises `UsageError` for rules, layers and an importance matrix that do not fit the model. `ref` is no alias.
    """
    from slmkit.ops import quantize as quantize_op

    if isinstance(imatrix, Path):
        spec = replace(spec, imatrix=known_imatrix(imatrix, None, session.registry))
    types = [quant for quant in types if not quant.is_float or spec.parameters]
    doubtful = imatrix is None and any(quant.may_need_imatrix for quant in types)
    asks = strict_share is not None or doubtful or spec != QuantizeSpec()
    if not types or not asks or convert_spec.converter != "slmkit":
        return {}
    with tempfile.TemporaryDirectory(prefix="slmkit-") as folder:
        source = None
        with suppress(SlmkitError):  # what is wrong with the checkpoint, pulling and converting will say
            source = _hollow(ref, Path(folder), session, convert_spec)
        if source is None:
            return {}
        return quantize_op.refused(source, types, spec, strict_share=strict_share, imatrix_comes=imatrix == "auto")


def told(
    refused: Mapping[QuantType, SlmkitError], on_failure: Callable[[QuantType, SlmkitError], None] | None
) -> Generator[QuantizeReport]:
    """No report, for types that are all refused: raises the first error, or tells each."""
    for quant, error in refused.items():
        if on_failure is None:
            raise error
        on_failure(quant, error)
    yield from ()


def _hollow(ref: ModelRef, folder: Path, session: Session, spec: ConvertSpec) -> Artifact:
    """The float file that would be made, without its weights, in `folder`."""
    from slmkit.formats.gguf.hollow import Hollow

    with unread(ref, session) as source:
        found = source.plan(outtype=DEFAULT_FLOAT.lower(), pre=spec.pre, progress=session.progress)
    path = folder / "source.gguf"
    Hollow(found.metadata, found.entries()).without_vocabulary().write(path)
    return Artifact(
        model=source.model_id,
        variant=DEFAULT_FLOAT,
        root=folder,
        files=(File(path.name, path.stat().st_size, ""),),
        owned=False,
        provenance=Provenance("convert"),
        created=now(),
        typed=str(ref),
    )
