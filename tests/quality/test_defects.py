"""What no quantization does is called broken; what one does is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.artifact import Artifact, Provenance
from slmkit.core.divergence import Scores
from slmkit.core.stats import Estimate
from slmkit.ops.quality.defects import defect, types_of

SMALL = {"Q4_0": 100, "Q8_0": 60, "F32": 2}
LARGE = {"Q8_0": 160, "F32": 2}


def scored(ppl: float = 15.0, kld: float | None = None) -> Scores:
    return Scores(6120, Estimate(ppl, 0.1), kld=None if kld is None else Estimate(kld, 0.001))


@pytest.mark.parametrize(
    ("kld", "types"),
    [(0.0056, LARGE), (0.3, SMALL), (0.6, SMALL), (None, LARGE), (0.23, None), (0.23, {}), (math.nan, LARGE)],
)
def test_what_a_type_can_cost_is_no_defect(kld: float | None, types: dict[str, int] | None) -> None:
    assert defect(scored(kld=kld), types) is None


@pytest.mark.parametrize("types", [LARGE, {"F16": 160, "F32": 2}, {"BF16": 1}])
def test_more_than_eight_bits_can_cost_is_one(types: dict[str, int]) -> None:
    found = defect(scored(kld=0.2306), types)
    assert found is not None
    assert "0.2306" in found


def made(**parameters: Any) -> Artifact:
    provenance = Provenance("quantize", parameters={"type": "Q8_0", "source": "org/m:F16", **parameters})
    return Artifact("org/m", "Q8_0", Path("/models"), (), True, provenance, "", facts={"params_by_type": LARGE})


@pytest.mark.parametrize(
    "parameters",
    [
        {"prune_layers": [1]},
        {"overrides": {"llama.rope.freq_base": 1.0}},
        {"rules": [["ffn_down", "Q8_0"]]},
        {"allow_requantize": True, "source": "org/m:Q4_0"},
        {"source": "org/m:F16-pruned-0f3a11"},
    ],
)
def test_what_was_made_to_be_another_model_may_cost_more_than_eight_bits(parameters: dict[str, Any]) -> None:
    assert defect(scored(kld=0.3), types_of(made(**parameters))) is None
    assert defect(scored(27_054.9, 0.3), types_of(made(**parameters))) is not None


@pytest.mark.parametrize("parameters", [{}, {"n_threads": 2, "leave_output": True}, {"source": "m-F16.gguf"}])
def test_a_plain_file_may_not(parameters: dict[str, Any]) -> None:
    assert defect(scored(kld=0.3), types_of(made(**parameters))) is not None


def test_guessing_is_one_beside_a_base_and_without() -> None:
    for kld in (None, 0.001):
        found = defect(scored(27_054.9, kld), SMALL)
        assert found is not None
        assert "27,055" in found
    assert defect(scored(300.0), SMALL) is None
    assert defect(scored(math.inf), SMALL) is None  # that is no number, and said elsewhere
