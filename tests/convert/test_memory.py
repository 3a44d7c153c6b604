"""Memory does not grow with the model: measured in children, as peak RSS above what the imports take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import make_llama

CHILD = """
import resource, sys
from pathlib import Path
from slmkit.ops.convert import convert
from slmkit.ops.export import export_hf
small, source, target, outtype = sys.argv[1:]
convert(Path(small), Path(target), outtype=outtype)  # imports, caches and thread stacks
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(Path(source), Path(target), outtype=outtype)
export_hf(Path(target), Path(target).with_suffix(".hf"))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown if sys.platform == "darwin" else grown * 1024)  # macOS counts bytes, Linux KiB
"""
ANONYMOUS = """
import sys, threading
from pathlib import Path
from slmkit.ops.convert import convert

def watch():
    while not done.wait(0.001):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                peaks.append(int(line.split()[1]) << 10)

source, target, outtype = sys.argv[1:]
peaks, done = [], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
convert(Path(source), Path(target), outtype=outtype)
done.set()
watcher.join()
print(max(peaks))
"""
MIB = 1 << 20


def child(code: str, *arguments: str | Path) -> int:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three sizes; the last is several times the second."""
    folder = tmp_path_factory.mktemp("models")
    tiny = make_llama(folder / "tiny", n_layers=1, hidden=64)
    small = make_llama(folder / "small", n_layers=2, hidden=1024)
    big = make_llama(folder / "big", n_layers=8, hidden=1024)
    assert (big / "model.safetensors").stat().st_size > 3.5 * (small / "model.safetensors").stat().st_size
    return tiny, small, big


@pytest.mark.parametrize("outtype", ["f16", "q8_0"])
def test_memory_is_bounded(outtype: str, models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    tiny, small, big = models
    first, second = (child(CHILD, tiny, source, tmp_path / f"{source.name}.gguf", outtype) for source in (small, big))
    assert second < 128 * MIB
    assert second - first < 32 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory from mapped files")
@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
def test_anonymous_memory_is_that_of_python_and_a_few_chunks(
    outtype: str, models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Below 100 MiB with everything, and the same for a model of four times the size."""
    first, second = (child(ANONYMOUS, source, tmp_path / "out.gguf", outtype) for source in models[1:])
    assert second < 100 * MIB
    assert second - first < 16 * MIB
