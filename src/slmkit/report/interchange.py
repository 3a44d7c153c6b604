"""Runs in the forms of other programs: llama-bench's five, and benchstat's."""

from __future__ import annotations

from collections.abc import Sequence

from slmkit.core.bench import BenchRun
from slmkit.errors import UsageError
from slmkit.report import llama_bench
from slmkit.report.benchstat import benchstat

_LLAMA_BENCH = "llama-bench:"
FORMS = (*(f"{_LLAMA_BENCH}{form}" for form in llama_bench.FORMS), "benchstat")


def check_interchange(form: str) -> None:
    """Raise `UsageError` for a form that `interchange` does not know: before the work, not after it."""
    if form not in FORMS:
        raise UsageError(f"no form {form!r}", hint=f"one of {', '.join(FORMS)}")


def interchange(runs: Sequence[BenchRun], form: str) -> str:
    """The runs as text that ends in a newline; raises `UsageError` for an unknown form."""
    check_interchange(form)
    if form == "benchstat":
        return benchstat(runs)
    return llama_bench.llama_bench(runs, form.removeprefix(_LLAMA_BENCH))


def left_out(runs: Sequence[BenchRun], form: str) -> list[str]:
    """The rows that the form has no words for, each with the reason."""
    return [] if form == "benchstat" else llama_bench.left_out(runs)
