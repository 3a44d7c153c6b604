"""What the engine says when it really loads a file: the buffers of its own log, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.plan import MAPPED, Context, ContextPlan, LoadMemory
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

_CODE = """
import json, sys
from slmkit.backends.llamacpp import bindings
log, told = [], []
bindings.on_log(lambda _, text: log.append(text))
with bindings.model(sys.argv[1], n_gpu_layers=0) as model:
    told.append("".join(log))
    for n_ctx, cache_type in json.loads(sys.argv[2]):
        log.clear()
        with bindings.context(
            model, n_ctx=n_ctx, n_batch=2048, n_ubatch=512, n_threads=1, type_k=cache_type, type_v=cache_type
        ):
            told.append("".join(log))
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Loaded:
    """MiB, rounded to two digits, as the engine prints them."""

    weights: Mapping[str, float]
    kv: float
    compute: float
    output: float


def load(path: Path, contexts: Sequence[Context]) -> list[Loaded]:
    """The file with all its weights, mapped as for `bench`, and one context after the other."""
    asked = json.dumps([(c.n_ctx, GGML_TYPES_BY_NAME[c.cache_type].id) for c in contexts])
    done = subprocess.run([sys.executable, "-c", _CODE, path, asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    model, *logs = json.loads(done.stdout)
    weights: dict[str, float] = {}
    for name, size in re.findall(r"(\S+) model buffer size =\s*([\d.]+) MiB", model):
        weights[name] = weights.get(name, 0) + float(size)
    return [Loaded(weights, _sum(log, "(?:KV|RS)"), _sum(log, "compute"), _sum(log, "output")) for log in logs]


def _sum(log: str, kind: str) -> float:
    return sum(float(mib) for mib in re.findall(rf"{kind} buffer size =\s*([\d.]+) MiB", log))


def assert_as_planned(path: Path, ways: Sequence[ContextPlan]) -> None:
    """Load the file in each way, and compare every buffer; a sum of n rounded buffers may be n hundredths off by half.

    A mapped buffer reaches from the first to the last weight that is used as it stands, whatever is between them.
    """
    for way, loaded in zip(ways, load(path, [way.context for way in ways]), strict=True):
        memory = way.memory
        assert isinstance(memory, LoadMemory), way.refusal
        said = f"{path.name}, {way.context}: {loaded} but {memory}"
        assert abs(mib(memory.kv_bytes) - loaded.kv) < 0.02, said
        assert mib(memory.compute_bytes) == loaded.compute, said
        assert abs(mib(memory.output_bytes) - loaded.output) < 0.005, said
        copies = {name: mib(size) for name, size in memory.weights_bytes.items() if name != MAPPED}
        assert copies == {name: size for name, size in loaded.weights.items() if name != "CPU_Mapped"}, said
        assert mib(memory.file_backed_bytes) <= loaded.weights["CPU_Mapped"] + 0.005, said
        if not copies:
            assert mib(memory.file_backed_bytes) == loaded.weights["CPU_Mapped"], said


def mib(size_bytes: int) -> float:
    """As the engine's log has it."""
    return float(f"{size_bytes / 2**20:.2f}")
