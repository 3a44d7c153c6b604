"""The parent's side of planning memory: what loading would take, without weights and without that memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slmkit.backends.llamacpp.child import Children, run
from slmkit.core.bench import BenchSpec
from slmkit.core.plan import Context, LoadMemory
from slmkit.errors import EngineError
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

_BENCH = BenchSpec()


def load_memory(
    paths: Sequence[Path], contexts: Sequence[Context], n_children: int, children: Children
) -> list[list[LoadMemory | EngineError]]:
    """For each file, of which only the header is read (its weights may be a hole), and each context.

    An entry is an error where the engine refuses. The settings are those of `bench`, on the CPU; the files are shared
    out among `n_children`, which work at the same time and are of `children` meanwhile.
    """
    asked = [(context.n_ctx, GGML_TYPES_BY_NAME[context.cache_type].id) for context in contexts]
    settings = {"contexts": asked, "n_batch": _BENCH.n_batch, "n_ubatch": _BENCH.n_ubatch}
    n_children = max(1, min(n_children, len(paths)))
    threads = ThreadPoolExecutor(n_children, thread_name_prefix="memory")
    answers: list[list[LoadMemory | EngineError]] = [[] for _ in paths]
    try:
        shares = [[str(path) for path in paths[first::n_children]] for first in range(n_children)]
        jobs = [threads.submit(run, "memory", {"paths": part, **settings}, children=children) for part in shares]
        for first, job in enumerate(jobs):
            answers[first::n_children] = [[_answer(answer) for answer in file] for file in job.result()["files"]]
    except BaseException:  # Ctrl-C, too
        children.kill()
        raise
    finally:
        threads.shutdown()
    return answers


def _answer(answer: Mapping[str, Any]) -> LoadMemory | EngineError:
    if "error" not in answer:
        return LoadMemory(answer["weights"], answer["kv"], answer["compute"], answer["output"])
    lines = tuple(line.strip() for line in str(answer["log"]).splitlines() if line.strip())
    reason = f": {lines[-1]}" if lines else ""
    return EngineError(f"{answer['error']}{reason}", log=lines[-20:])
