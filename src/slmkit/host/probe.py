"""What this computer is, as recorded with every measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from slmkit.host import memory


@dataclass(frozen=True)
class Host:
    """One machine. `features` are CPU features that matter to llama.cpp, as the system names them."""

    cpu: str
    n_cores: int
    n_logical: int
    memory_bytes: int
    system: str
    machine: str
    python: str
    features: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "features": list(self.features)}


def host() -> Host:
    """Probe this machine."""
    return Host(
        cpu=_cpu_name(),
        n_cores=physical_cores(),
        n_logical=os.cpu_count() or 1,
        memory_bytes=memory.total_bytes(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        python=platform.python_version(),
        features=_features(),
    )


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads not counted twice: llama-bench's default number of threads.

    As common_cpu_get_num_math of llama.cpp's common/common.cpp (0c1e57098), but for two cases: inside a CPU set there
    cannot be more than the set has, and on Intel's hybrid CPUs llama.cpp leaves out the efficiency cores (give -t).
    """
    if platform.system() == "Darwin":  # the performance cores alone
        cores = _sysctl("hw.perflevel0.physicalcpu")
        if cores.isdigit():
            return int(cores)
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


_MATTERS = ("avx", "fma", "f16c", "amx", "sse3", "ssse3", "asimd", "sve", "i8mm", "bf16", "fphp", "dotprod")


def _features() -> tuple[str, ...]:
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return tuple(sorted(f for f in set(value.split()) if f.startswith(_MATTERS)))
    return ()


def _cpu_name() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string") or "unknown"
    return platform.processor() or platform.machine()


def _sysctl(name: str) -> str:
    return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False).stdout.strip()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
