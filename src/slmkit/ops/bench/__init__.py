"""`bench`: speed, time to first token and memory, each measurement in a child process of its own."""

from slmkit.ops.bench.cell import LEAST_CHILDREN, PAIRS, PER_CHILD, Effort
from slmkit.ops.bench.run import bench
from slmkit.ops.bench.threads import Threads, fastest

__all__ = ["LEAST_CHILDREN", "PAIRS", "PER_CHILD", "Effort", "Threads", "bench", "fastest"]
