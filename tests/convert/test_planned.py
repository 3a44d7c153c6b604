"""Sizes and memory that `plan` promises, for every architecture and for real models: made, loaded and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit.backends.llamacpp.quantize import quantize
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineError
from slmkit.ops import adopt, corpora
from slmkit.ops.adopt import local_model
from slmkit.ops.convert import convert
from slmkit.ops.imatrix import imatrix
from slmkit.ops.plan import CACHE_TYPES
from slmkit.recipes import foresight
from slmkit.recipes.session import Session
from tests.convert.families import cases
from tests.real_load import assert_as_planned


def first_of_each_family() -> list[str]:
    """One case for each module of `families`, and those whose layers are of several kinds."""
    by_module: dict[str, str] = {}
    for name, case in cases().items():
        if case.outtypes and not case.upstream:
            by_module.setdefault(case.make.__module__, name)
    return [*by_module.values(), "tiny-gemma3", "tiny-phi4-mini", "mamba-first"]


def check(
    folder: Path,
    types: str,
    session: Session,
    target: Path,
    n_ctx: tuple[int, ...],
    *,
    cache_types: tuple[str, ...] = ("F16",),
) -> None:
    """Make each type of `types` (none: every one that can be) as `slmkit` does, and compare."""
    found = foresight.plan(
        ModelRef.parse(str(folder)), session, types=quant_types([types]), n_ctx=n_ctx, cache_types=cache_types
    )
    source = target / "source-F16.gguf"
    convert(folder, source, outtype="f16", model_id=local_model(folder.name))
    spec = QuantizeSpec()
    if any(row.needs_imatrix for row in found.types):
        made_of = adopt.describe(source, SILENT)
        weighed = imatrix(made_of, corpora.corpus(), session.registry, SILENT, n_chunks=2).artifact
        spec = QuantizeSpec(imatrix=ImatrixFile("mixed", weighed.path, weighed.digest))
    for row in found.types:
        quant, made = QUANT_TYPES[row.variant], target / f"{row.variant}.gguf"
        if row.refusal:
            with pytest.raises(EngineError, match=row.refusal.partition(": ")[2]):
                quantize(source, made, quant, n_threads=2, progress=SILENT)
            continue
        if quant.is_float:
            convert(folder, made, outtype=row.variant.lower(), model_id=local_model(folder.name))
        else:
            how = spec if row.needs_imatrix else QuantizeSpec()
            quantize(source, made, quant, n_threads=2, progress=SILENT, spec=how)
        assert made.stat().st_size == row.size_bytes, row.variant
        assert_as_planned(made, row.contexts)
        made.unlink()


@pytest.mark.parametrize("name", first_of_each_family())
def test_every_family(name: str, make_case: Callable[[str], Path], session: Session, tmp_path: Path) -> None:
    check(make_case(name), "F16,Q4_K_M", session, tmp_path, (512,))


def test_smollm2(smollm2: Path, session: Session, tmp_path: Path) -> None:
    check(smollm2, "F16,Q4_0,Q4_K_M,Q5_1,Q8_0", session, tmp_path, (4096, 8192))


def test_every_kv_cache(smollm2: Path, session: Session, tmp_path: Path) -> None:
    check(smollm2, "Q8_0", session, tmp_path, (1024, 8192), cache_types=CACHE_TYPES)


@pytest.mark.real
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_every_type(model: str, request: pytest.FixtureRequest, session: Session, tmp_path: Path) -> None:
    """Of each model, with each type of KV cache: half an hour."""
    check(request.getfixturevalue(model), "", session, tmp_path, (4096,), cache_types=CACHE_TYPES)
