"""The engine's buffers by what they are for, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_OUTPUT = re.compile(r"output buffer size =\s*([\d.]+) MiB")


@dataclass(frozen=True)
class Share:
    """What one kind of buffer holds: weights, the context's state (KV cache, recurrent state), scratch space."""

    model_bytes: int
    context_bytes: int
    compute_bytes: int


def sums(shares: Mapping[str, Share], log: str) -> dict[str, int]:
    """Bytes of weights, repacked weights, KV cache, scratch space, outputs (as far as the log tells) and VRAM.

    `shares` are by the name of the buffer type, `log` is what the engine said when it made the context. Of a GPU are
    all but the CPU's and those in pinned memory of the host (`CUDA_Host`, `Vulkan_Host`, ...).
    """
    found = {
        "weights": sum(share.model_bytes for name, share in shares.items() if "REPACK" not in name),
        "repacked": sum(share.model_bytes for name, share in shares.items() if "REPACK" in name),
        "kv": sum(share.context_bytes for share in shares.values()),
        "compute": sum(share.compute_bytes for share in shares.values()),
    }
    outputs = output_bytes(log)
    if outputs is not None:
        found["output"] = outputs
    on_gpu = [share for name, share in shares.items() if not (name.startswith("CPU") or name.endswith("_Host"))]
    if on_gpu:
        found["vram"] = sum(share.model_bytes + share.context_bytes + share.compute_bytes for share in on_gpu)
    return found


def output_bytes(log: str) -> int | None:
    """What a context keeps logits in, always on the host: the breakdown lacks it, and the log rounds it to a hundredth
    of a MiB; `None` where it says nothing.
    """
    found = _OUTPUT.findall(log)
    return round(sum(map(float, found)) * 2**20) if found else None
