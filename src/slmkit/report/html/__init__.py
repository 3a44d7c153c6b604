"""Pages that need nothing else: no network, no other file, and no JavaScript to be read."""

from __future__ import annotations

from slmkit.report.html.bench import bench_page, compare_page
from slmkit.report.html.page import table_page
from slmkit.report.html.quality import quality_page
from slmkit.report.html.runs import runs_page
from slmkit.report.html.sensitivity import sensitivity_page

__all__ = ["bench_page", "compare_page", "quality_page", "runs_page", "sensitivity_page", "table_page"]
