"""Pages that need nothing else: no network, no other file, and no JavaScript to be read."""

from __future__ import annotations

from slmkit.report.html.bench import bench_page, compare_page
from slmkit.report.html.page import table_page

__all__ = ["bench_page", "compare_page", "table_page"]
