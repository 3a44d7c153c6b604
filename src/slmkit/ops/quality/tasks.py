"""Multiple-choice questions, put to several models: those that come with slmkit, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from slmkit.backends.llamacpp import child
from slmkit.backends.llamacpp.choices import choices
from slmkit.core.artifact import Artifact
from slmkit.core.bench import Failure
from slmkit.core.progress import Progress, Task
from slmkit.core.tasks import Scored, TaskResult, TaskSpec
from slmkit.errors import EngineError, EngineMissingError, UsageError
from slmkit.formats import tasks as file
from slmkit.host.probe import physical_cores

BUNDLED = "basics"


def bundled() -> TaskSpec:
    """The questions that come with slmkit."""
    path = resources.files("slmkit") / "data" / "tasks" / f"{BUNDLED}.jsonl"
    return file.parse(path.read_bytes(), BUNDLED)


def task_file(path: Path) -> TaskSpec:
    """The user's own; raises `UsageError` for a file that cannot be read, `FormatError` with its line for what is in
    it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "a file of JSON lines is wanted, in the form of MMLU, ARC or HellaSwag"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    return file.parse(content, path.name)


def answer(
    artifacts: Sequence[Artifact], task: TaskSpec, progress: Progress, *, n_threads: int | None = None
) -> tuple[TaskResult, ...]:
    """The answers of each, in their order; one that cannot be asked has the reason instead.

    Raises `UsageError` for a checkpoint, and `EngineMissingError`.
    """
    for artifact in artifacts:
        artifact.require_gguf()
    child.require_engine()
    threads = n_threads or physical_cores()
    with progress.task(f"questions {task.name}", len(artifacts) * len(task.questions), "steps") as shown:
        return tuple(_ask(artifact, task, shown, threads) for artifact in artifacts)


def _ask(artifact: Artifact, task: TaskSpec, shown: Task, n_threads: int) -> TaskResult:
    plain = TaskResult(artifact.ref, artifact.digest, task.name, task.form, task.sha256)
    shown.describe(f"questions {task.name}: {artifact.ref}")
    try:
        found = choices(artifact.path, task.questions, n_threads=n_threads, on_answered=shown.advance)
    except EngineMissingError:
        raise
    except EngineError as error:
        return replace(plain, failure=Failure.of(error))
    scored = tuple(
        Scored(
            name=question.name,
            domain=question.domain,
            answer=question.answer,
            logs=logs,
            n_chars=tuple(map(len, question.choices)),
            n_bytes=tuple(len(choice.encode()) for choice in question.choices),
            n_tokens=n_tokens,
        )
        for question, logs, n_tokens in zip(task.questions, found.logs, found.n_tokens, strict=True)
    )
    return replace(plain, scored=scored, n_cut=found.n_cut, build=found.build)
