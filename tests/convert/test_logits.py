"""What llama.cpp computes from the converted file, against a plain forward pass over the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slmkit.ops.convert import convert
from tests.convert.engine import logits
from tests.convert.families import cases

TOKENS = [1, 5, 300, 17, 17, 42, 260, 3, 511, 128, 99, 400, 2, 77, 310, 45, 201, 8, 64, 333, 19, 500, 12, 1]


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.forward])
def test_logits(name: str, make_case: Callable[[str], Path], tmp_path: Path) -> None:
    case = cases()[name]
    forward = case.forward
    assert forward is not None
    checkpoint = make_case(name)
    convert(checkpoint, tmp_path / "out.gguf", outtype="f32")
    found, wanted = logits(tmp_path / "out.gguf", TOKENS), forward(checkpoint).logits(TOKENS)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() / wanted.std() < case.tolerance
