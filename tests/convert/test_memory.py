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
MIB = 1 << 20


def growth_bytes(small: Path, source: Path, outtype: str, folder: Path) -> int:
    command = [sys.executable, "-c", CHILD, str(small), str(source), str(folder / f"{source.name}.gguf"), outtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("outtype", ["f16", "q8_0"])
def test_memory_is_bounded(outtype: str, tmp_path: Path) -> None:
    tiny = make_llama(tmp_path / "tiny", n_layers=1, hidden=64)
    small = make_llama(tmp_path / "small", n_layers=2, hidden=1024)
    big = make_llama(tmp_path / "big", n_layers=8, hidden=1024)
    assert (big / "model.safetensors").stat().st_size > 3.5 * (small / "model.safetensors").stat().st_size
    first, second = (growth_bytes(tiny, source, outtype, tmp_path) for source in (small, big))
    assert second < 128 * MIB
    assert second - first < 32 * MIB
