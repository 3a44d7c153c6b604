"""What this machine can do at most, measured in about a second: the ceilings of a model's speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from slmkit.core.machine import Machine

TIMEOUT_S = 60.0
_ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)


def measure(n_threads: int) -> Machine | None:
    """Bandwidth and FLOP/s of `n_threads` threads, and the time of the fixed kernel in one; `None` where the child that
    measures them fails (no memory for its 300 MB, say).

    llama.cpp multiplies quantized weights in integers, so a prompt may take more than the float32 peak measured here.
    """
    command = [sys.executable, "-P", "-m", "slmkit.host.kernels", str(n_threads)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S, env={**os.environ, **_ONE_THREAD}
        )
        return Machine(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
