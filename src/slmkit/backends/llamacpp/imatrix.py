"""The parent's side of collecting an importance matrix: one typed call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.imatrix import CHUNK_TOKENS, Calibration, Reason
from slmkit.core.progress import Progress
from slmkit.errors import UsageError


@dataclass(frozen=True)
class Collected:
    """How collecting went; `moved` is the share of the importance that moved at each look."""

    n_tokens: int
    n_chunks: int
    n_entries: int
    reason: Reason
    moved: tuple[float, ...]
    build: Mapping[str, str]


def collect(
    source: Path,
    target: Path,
    calibration: Calibration,
    *,
    state: Path,
    subject: str,
    n_chunks: int | None,
    n_threads: int,
    progress: Progress,
) -> Collected:
    """Run the text through the model and write the importance matrix to `target`.

    What is collected is kept in `state` every few chunks or seconds; a later call about the same `subject`, which
    stands for model and text, goes on from there and ends in the same bytes. `n_chunks` bounds the text. Raises
    `UsageError` for a text that is too short, `OSError` for a disk that is full, and `EngineError`.
    """
    with progress.task(f"imatrix {calibration.name}", None, "steps") as task:

        def listen(event: Event, _: int) -> None:
            if event["event"] == "text":
                task.set_total(event["n_chunks"])
                task.advance(event["done"])
                if event["done"]:
                    progress.say(f"going on after {event['done']} chunks that an interrupted run had done")
            elif event["event"] == "chunk":
                task.advance()

        arguments = {
            "path": str(source),
            "text": calibration.text,
            "dataset": calibration.name,
            "target": str(target),
            "state": str(state),
            "subject": subject,
            "n_chunks": n_chunks,
            "n_threads": n_threads,
        }
        result = run("imatrix", arguments, listen=listen)
    if result.get("errno"):
        raise OSError(result["errno"], "cannot write", str(target))
    if not result["n_chunks"]:
        raise UsageError(
            f"the text {calibration.name} is {result['n_tokens']} tokens long: less than one chunk of {CHUNK_TOKENS}",
            hint="give a longer one: `--text FILE`, or none for the text that comes with slmkit",
        )
    return Collected(
        n_tokens=result["n_tokens"],
        n_chunks=result["n_chunks"],
        n_entries=result["n_entries"],
        reason=result["reason"],
        moved=tuple(result["moved"]),
        build=dict(result["build"]),
    )
