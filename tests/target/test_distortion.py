"""What is measured is what the engine does, by reading its files back with llama.cpp's own Python package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from slmkit.backends.llamacpp.distortion import Distortion, Probe, distortion
from slmkit.backends.llamacpp.quantize import quantize
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.errors import EngineError
from slmkit.formats import imatrix as imatrix_format
from slmkit.formats.gguf.header import read_header
from slmkit.formats.imatrix import Imatrix, Importance

TYPES = {"Q4_0": "Q4_0", "Q4_K": "Q4_K_S", "Q6_K": "Q6_K", "Q8_0": "Q8_0", "IQ4_NL": "IQ4_NL", "IQ3_S": "IQ3_S"}
"""ggml types, and a type of file whose base they are."""


def weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}


def probes(path: Path, types: tuple[str, ...]) -> list[Probe]:
    header = read_header(path)
    return [
        Probe(tensor, path, header.data_offset + tensor.offset, types)
        for tensor in header.tensors
        if len(tensor.shape) > 1
    ]


def measured(path: Path, types: tuple[str, ...], imatrix: Path | None = None, n_sample: int = 1 << 30) -> Any:
    found: dict[str, Distortion] = {}
    distortion(
        probes(path, types), imatrix=imatrix, n_sample=n_sample, n_threads=2, listen=lambda n, d: found.update({n: d})
    )
    return found


def importance(path: Path, target: Path) -> dict[str, npt.NDArray[Any]]:
    """An imatrix of all but the embedding, whose columns differ by factors of up to a hundred."""
    random = np.random.default_rng(5)
    entries = {
        probe.tensor.name: Importance(
            10 ** random.uniform(-1, 1, (1, probe.tensor.shape[0])).astype(np.float32), np.array([1])
        )
        for probe in probes(path, ())
        if probe.tensor.name != "token_embd.weight"
    }
    imatrix_format.write(target, Imatrix(entries, ("text",), 1, 512))
    return {name: entry.means[0] for name, entry in entries.items()}


@pytest.mark.parametrize("weighed", [False, True])
def test_the_error_is_that_of_the_file_that_the_engine_makes(f16: Path, tmp_path: Path, weighed: bool) -> None:
    imatrix = tmp_path / "imatrix.gguf" if weighed else None
    columns = importance(f16, imatrix) if imatrix else {}
    found = measured(f16, tuple(TYPES), imatrix)
    source = weights(f16)
    for kind, name in TYPES.items():
        made = tmp_path / f"{kind}.gguf"
        quantize(
            f16,
            made,
            QUANT_TYPES[name],
            n_threads=2,
            progress=SILENT,
            spec=QuantizeSpec(pure=True, imatrix=ImatrixFile("x", imatrix, "") if imatrix else None),
        )
        stored = {t.name: t.type.name for t in read_header(made).tensors}
        back = weights(made)
        compared = 0
        for tensor, seen in found.items():
            if stored[tensor] == kind:
                x, w = source[tensor].astype(np.float64), columns.get(tensor, np.ones(1))
                expected = (w * (x - back[tensor]) ** 2).sum() / (w * x**2).sum()
                assert seen.relative_errors[kind] == pytest.approx(expected, rel=1e-3), (kind, tensor)
                compared += 1
        assert compared >= len(found) - 2, kind


def test_a_sample_of_the_rows_says_nearly_the_same(f16: Path) -> None:
    every, some = measured(f16, ("Q4_0",)), measured(f16, ("Q4_0",), n_sample=1 << 14)
    for name, seen in some.items():
        assert seen.n_rows < every[name].n_rows
        assert seen.relative_errors["Q4_0"] == pytest.approx(every[name].relative_errors["Q4_0"], rel=0.1)


def test_an_imatrix_of_another_model_is_refused(f16: Path, tmp_path: Path) -> None:
    entries = {"blk.0.attn_q.weight": Importance(np.ones((1, 32), np.float32), np.array([1]))}
    imatrix_format.write(tmp_path / "other.gguf", Imatrix(entries, ("text",), 1, 512))
    with pytest.raises(EngineError, match="imatrix is of another model"):
        measured(f16, ("Q4_0",), tmp_path / "other.gguf")
