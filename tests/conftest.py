"""What all tests share: a home of their own, the program as users run it, and one real tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.host import limits
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real", action="store_true", help="also test real models that must be downloaded (320 MB, kept)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: needs a real model that must be downloaded; `--real` runs it")


def pytest_report_header(config: pytest.Config) -> str:
    return "real models: " + ("all" if config.getoption("--real") else "SmolLM2 only; `--real` adds those to download")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `real`; pytest counts it as deselected."""
    if config.getoption("--real"):
        return
    left_out = [item for item in items if item.get_closest_marker("real")]
    items[:] = [item for item in items if not item.get_closest_marker("real")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's models, cache or token, and none reaches the network."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def registry() -> Registry:
    """An empty registry in this test's home."""
    return Registry()


@pytest.fixture
def session(registry: Registry) -> Session:
    """A session that may not use the network."""
    return Session(registry, SILENT, may_pull=False, offline=True)


@pytest.fixture
def slmkit(tmp_path: Path) -> Run:
    """Runs the program as users do: a process of its own, in an empty folder."""

    def run(
        *arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "cwd"
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "slmkit", *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def llama_tools() -> Path:
    """The folder of llama.cpp's own programs: llama-quantize, llama-imatrix, llama-gguf-split."""
    script = Path(__file__).parent.parent / "scripts" / "llama-tools"
    command = [str(script), sys.executable, "llama-quantize", "llama-imatrix", "llama-gguf-split"]
    return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@pytest.fixture(scope="session")
def llama_bench() -> Path:
    """llama.cpp's own benchmark."""
    script = Path(__file__).parent.parent / "scripts" / "llama-tools"
    done = subprocess.run([str(script), sys.executable, "llama-bench"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip()) / "llama-bench"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny real Llama checkpoint, `tiny-llama`; read only."""
    return factories.make_llama(tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def f16(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It, converted: a GGUF file that llama.cpp loads; read only."""
    target = tmp_path_factory.mktemp("gguf") / "tiny-llama-F16.gguf"
    home = Registry(tmp_path_factory.mktemp("home"))
    verbs.convert(ModelRef("path", str(checkpoint)), Session(home, SILENT), target=target)
    return target


@pytest.fixture
def float_artifact(checkpoint: Path, session: Session) -> Artifact:
    """The tiny model as F16 in this test's registry: `local/tiny-llama:F16`."""
    return verbs.convert(ModelRef("path", str(checkpoint)), session)


@pytest.fixture
def tiny(float_artifact: Artifact, session: Session) -> str:
    """The reference of a model that has F16 and Q4_0."""
    from slmkit.core.quant import quant_types

    list(verbs.quantize(ModelRef.parse(float_artifact.model), quant_types(["Q4_0"]), session))
    return float_artifact.model


@pytest.fixture(params=list(limits._WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[limits.Kind]:
    """Each kind of memory limit that holds on this system."""
    kind: limits.Kind = request.param
    monkeypatch.setattr(limits, "_WAYS", {kind: limits._WAYS[kind]})
    limits.means.cache_clear()
    means = limits.means()
    if means.kind is None:
        limits.means.cache_clear()
        pytest.skip(f"{kind} does not hold here: no right to it, or not there")
    yield kind
    limits.means.cache_clear()
