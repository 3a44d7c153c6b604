"""`bench`: speed, time to first token and memory, each measurement in a child process of its own."""

from slmkit.ops.bench.run import LEAST_CHILDREN, PAIRS, Effort, bench
from slmkit.ops.bench.threads import Threads, fastest
from slmkit.ops.bench.versus import Versus, versus

__all__ = ["LEAST_CHILDREN", "PAIRS", "Effort", "Threads", "Versus", "bench", "fastest", "versus"]
