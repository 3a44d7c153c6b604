"""The best mix of types for a size, with what must come before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.recipes.session import Session
from slmkit.recipes.spared import dropped_floats, known_imatrix
from slmkit.recipes.verbs import float_source, imatrix_file
from slmkit.registry import imatrices

if TYPE_CHECKING:
    from slmkit.ops.quantize import QuantizeReport


def quantize_to_target(
    ref: ModelRef,
    target: TargetSpec,
    session: Session,
    *,
    name: str | None = None,
    imatrix: Path | Literal["auto", "newest"] | None = "newest",
    convert_spec: ConvertSpec | None = None,
    force: bool = False,
    may_replace: bool = False,
    n_threads: int | None = None,
) -> QuantizeReport:
    """Make the best mix of types of the size that `target` says, pulling and converting (as `convert_spec` says) first
    where that is missing.

    `imatrix` is as for `quantize`; `newest` is that of the source if it has one, and collects none.
    """
    from slmkit.ops import quantize as quantize_op
    from slmkit.ops import target as target_op  # loads numpy

    registry, progress = session.registry, session.progress
    if not force and (report := _spared(ref, target, session, imatrix, convert_spec)):
        return report
    source = float_source(ref, session, convert_spec)
    target_op.float_headers(source)  # what is refused is refused before an importance matrix is collected for it
    if imatrix == "newest":
        imatrix = "auto" if imatrices.newest(registry, source) else None
        if imatrix is None:
            progress.say(f"no importance matrix of {source.ref}: `--imatrix auto` makes a better mix")
    file = imatrix_file(imatrix, source, session, n_threads) if imatrix else None
    made = None if force else target_op.find(source, target, registry, file)
    if made:
        return _made(source, made)
    plan = target_op.plan(source, target, registry, progress, imatrix=file, n_threads=n_threads)
    progress.say(f"estimated divergence from {source.variant}: {plan.mix.expected_kld:.4f} nats a token")
    (report,) = quantize_op.quantize(
        source,
        [plan.quant],
        registry,
        progress,
        spec=plan.spec,
        name=name,
        force=force,
        may_replace=may_replace,
        n_threads=n_threads,
    )
    return report


def _spared(
    ref: ModelRef,
    target: TargetSpec,
    session: Session,
    imatrix: Path | Literal["auto", "newest"] | None,
    convert_spec: ConvertSpec | None,
) -> QuantizeReport | None:
    """What was made for the target, when it is here and only its source was dropped."""
    from slmkit.ops import target as target_op

    for source in dropped_floats(ref, session, convert_spec):
        file = known_imatrix("auto" if imatrix == "newest" else imatrix, source, session.registry) if imatrix else None
        if file is None and imatrix == "auto":
            continue
        made = target_op.find(source, target, session.registry, file)
        if made:
            return _made(source, made)
    return None


def _made(source: Artifact, made: Artifact) -> QuantizeReport:
    from slmkit.ops import quantize as quantize_op

    return quantize_op.QuantizeReport(QUANT_TYPES[made.provenance.parameters["type"]], source, made, fresh=False)
