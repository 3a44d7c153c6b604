"""How fast a machine is by itself: what a model's speed is held against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """Measured with `n_threads` threads.

    `bandwidth_bytes_per_s` of reading memory and `flop_per_s` of multiplying float32 matrices are ceilings: of the
    generation of tokens, and of reading a prompt. `kernel_ns` is the time of a fixed piece of work that does both.
    """

    n_threads: int
    bandwidth_bytes_per_s: float
    flop_per_s: float
    kernel_ns: int

    def document(self) -> dict[str, Any]:
        """As JSON; `Machine(**document)` is the inverse."""
        return asdict(self)
