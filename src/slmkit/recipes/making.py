"""What of a recipe's files is to be made, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from slmkit.core.artifact import Artifact
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.quantize import ImatrixFile, QuantizeSpec, variant_name
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import corpora, locate
from slmkit.ops.imatrix import label
from slmkit.ops.quantize import brought, fitting, is_as_asked
from slmkit.recipes.schema import RecipeModel
from slmkit.recipes.session import Session
from slmkit.recipes.spared import dropped_floats, known_imatrix
from slmkit.registry.store import Registry, is_current

NOT_YET, ALREADY, OTHERWISE = "not made yet", "made already", "made in another way than the recipe's"
CHANGED = "made from other bytes, or damaged"


@dataclass(frozen=True)
class Step:
    """One verb on one item. `why` says what makes it necessary, or why not."""

    verb: str
    ref: str
    to_do: bool
    why: str


def make_steps(model: RecipeModel, ref: ModelRef, source: Artifact | None, session: Session) -> Iterator[Step]:
    """Converting and quantizing one model; `source` is its checkpoint, or the GGUF that a path names."""
    registry, name = session.registry, source.model if source else ref.model
    file = source if source and not source.is_checkpoint else None  # it is quantized itself
    base = file or locate.best_float(name, source, registry)
    if base and not model.convert.is_met_by(base):
        base = None
    base = base or next(dropped_floats(ref, session, model.convert), None)
    how = model.quantize
    wanted = how.imatrix_of_types if model.quantized else how.imatrix_of_target if model.target else None
    imatrix = _imatrix(wanted, base, registry)
    if wanted == "auto":
        why = "collected already" if imatrix and imatrix.digest else "not collected yet"
        yield Step("imatrix", name, why == "not collected yet", why)
    for quant in model.types:
        if quant.is_float and not file:
            yield _convert_step(model, quant, name, source, base, registry)
        else:
            spec = QuantizeSpec() if quant.is_float else replace(how.spec, imatrix=imatrix)
            yield _quantize_step(quant, spec, None if quant.is_float else how.name, name, base, registry)
    if model.target:
        if how.imatrix_of_target == "newest":
            imatrix = _imatrix("newest", base, registry)
        yield _target_step(model, imatrix, name, base, registry)


def _imatrix(
    wanted: Path | Literal["auto", "newest"] | None, base: Artifact | None, registry: Registry
) -> ImatrixFile | None:
    """The one that is there; one without a digest stands for what is to be collected first, or is no file."""
    if wanted is None:
        return None
    if isinstance(wanted, Path):
        try:
            return known_imatrix(wanted, base, registry)
        except UsageError:
            return ImatrixFile(wanted.name, wanted, "")
    found = known_imatrix("auto", base, registry)
    return found or (ImatrixFile(label(corpora.corpus()), Path(), "") if wanted == "auto" else None)


def _convert_step(
    model: RecipeModel,
    quant: QuantType,
    name: str,
    source: Artifact | None,
    base: Artifact | None,
    registry: Registry,
) -> Step:
    found = registry.find(name, quant.name)
    if found is None:
        return Step("convert", f"{name}:{quant}", True, NOT_YET)
    if found != base and (source is None or not is_current(found, source.digest)):
        return Step("convert", found.ref, True, CHANGED)
    if not model.convert.is_met_by(found):
        return Step("convert", found.ref, True, "converted in another way than the recipe's")
    return Step("convert", found.ref, False, ALREADY)


def _quantize_step(
    quant: QuantType, spec: QuantizeSpec, label: str | None, name: str, base: Artifact | None, registry: Registry
) -> Step:
    """`base` may have been dropped."""
    spec = fitting(spec, base) if base else replace(spec, allow_requantize=False)
    variant = variant_name(quant, spec, name=label, source=base.variant if base else None)
    ref = f"{name}:{variant}"
    if base and variant == base.variant:
        return Step("quantize", ref, False, ALREADY)
    found = registry.find(name, variant)
    if found is None:
        return Step("quantize", ref, True, NOT_YET)
    if error := brought(found):
        return Step("quantize", ref, True, f"will fail: {error.message}")
    if base is None or not is_current(found, base.digest):
        return Step("quantize", ref, True, CHANGED)
    if not is_as_asked(found, spec):
        return Step("quantize", ref, True, OTHERWISE)
    return Step("quantize", ref, False, ALREADY)


def _target_step(
    model: RecipeModel, imatrix: ImatrixFile | None, name: str, base: Artifact | None, registry: Registry
) -> Step:
    from slmkit.ops import target as target_op  # loads numpy

    assert model.target is not None
    made = target_op.find(base, model.target, registry, imatrix) if base else None
    if made:
        return Step("quantize", made.ref, False, ALREADY)
    spec = QuantizeSpec(target=model.target, imatrix=imatrix)
    source = base.variant if base else None
    variant = variant_name(QUANT_TYPES["Q8_0"], spec, name=model.quantize.name, source=source)
    found = registry.find(name, variant)
    return Step("quantize", f"{name}:{variant}", True, "made in another way, or from other bytes" if found else NOT_YET)
