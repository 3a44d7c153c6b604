"""`bench`: speed, time to first token and memory, each measurement in a child process of its own."""

from slmkit.ops.bench.cell import LEAST_CHILDREN, PAIRS, PER_CHILD, Effort
from slmkit.ops.bench.run import bench
from slmkit.ops.bench.search import bench_and_search

__all__ = ["LEAST_CHILDREN", "PAIRS", "PER_CHILD", "Effort", "bench", "bench_and_search"]
