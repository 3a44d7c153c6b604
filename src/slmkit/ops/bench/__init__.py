"""`bench`: speed, time to first token and memory, each measurement in a child process of its own."""

from slmkit.ops.bench.run import Effort, bench

__all__ = ["Effort", "bench"]
