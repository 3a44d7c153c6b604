"""Looking is free: help, `list`, `show` and `catalog` load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL
from tests.factories import make_llama

NOT_TO_CONVERT = ["asyncio", "httpx", "huggingface_hub", "jinja2", "llama_cpp", "matplotlib", "psutil", "rich"]
HEAVY = ["gguf", "httpx", "huggingface_hub", "jinja2", "llama_cpp", "matplotlib", "numpy", "tokenizers"]
RUN = f"""
import sys
sys.argv = ["slmkit", *sys.argv[1:]]
from slmkit.cli.app import main
try:
    main()
finally:
    print("loaded:", *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "quantize --help",
        "list",
        "list --json",
        f"show {MODEL}",
        f"show {MODEL}:Q4_0 --json",
        "catalog",
        f"compare {MODEL}",
        "verify",
        f"rm {MODEL} --dry-run",
        "list --all",
        f"lineage {MODEL}",
        f"get {MODEL}",
    ],
)
def test_a_command_that_only_looks_loads_nothing_heavy(furnished: Registry, arguments: str) -> None:
    done = python(RUN, *arguments.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr.splitlines()[-1] == "loaded:"


def test_importing_the_package_loads_only_itself() -> None:
    code = "import sys, slmkit; slmkit.__version__; dir(slmkit); print(*(m for m in sys.modules if 'slmkit' in m))"
    assert sorted(python(code).stdout.split()) == ["slmkit", "slmkit._version"]


def test_the_public_names_load_nothing_heavy() -> None:
    touch = "import sys, slmkit; [getattr(slmkit, name) for name in slmkit.__all__]"
    code = f"{touch}; print(*(set({HEAVY!r}) & set(sys.modules)))"
    done = python(code)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_local_conversion_loads_only_what_it_needs(tmp_path: Path) -> None:
    checkpoint = make_llama(tmp_path / "llama", n_layers=1, hidden=64)
    code = RUN.replace(repr(HEAVY), repr(NOT_TO_CONVERT))
    done = python(code, "convert", str(checkpoint), "-o", str(tmp_path / "out.gguf"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded:"


def test_what_works_does_load_it(furnished: Registry) -> None:
    """The list of modules is not empty by mistake."""
    done = python(RUN, "compare", MODEL, "--plot", str(furnished.home / "x.svg"))
    assert "matplotlib" in done.stderr.splitlines()[-1]
    assert "numpy" in done.stderr.splitlines()[-1]
