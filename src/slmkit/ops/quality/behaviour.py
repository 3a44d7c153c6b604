"""What a reference and its quants write after the prompts that come with slmkit."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources

from slmkit.backends.llamacpp import child
from slmkit.backends.llamacpp.greedy import greedy
from slmkit.core.artifact import Artifact
from slmkit.core.behaviour import N_GEN, Behaviour, BehaviourReport, Prompt, PromptSet
from slmkit.core.bench import Failure
from slmkit.core.progress import Progress, Task
from slmkit.errors import EngineError, EngineMissingError, UsageError
from slmkit.host.probe import physical_cores


@cache
def bundled() -> PromptSet:
    """The prompts that come with slmkit."""
    content = (resources.files("slmkit") / "data" / "prompts.toml").read_bytes()
    found = tomllib.loads(content.decode("utf-8"))["prompt"]
    prompts = (Prompt(**{**each, "keys": tuple(each.get("keys", ()))}) for each in found)
    return PromptSet(hashlib.sha256(content).hexdigest(), tuple(prompts))


def behaviour(
    reference: Artifact,
    artifacts: Sequence[Artifact],
    progress: Progress,
    *,
    n_gen: int = N_GEN,
    n_threads: int | None = None,
) -> BehaviourReport:
    """What each writes, `n_gen` tokens at most after each prompt, the reference only once; one that cannot has the
    reason instead.

    Raises `UsageError` for a checkpoint or no tokens, and `EngineMissingError`.
    """
    for artifact in (reference, *artifacts):
        artifact.require_gguf()
    if n_gen < 1:
        raise UsageError(f"n_gen is {n_gen}: it must be at least 1")
    child.require_engine()
    threads = n_threads or physical_cores()
    prompts = bundled()
    n_answers = len(prompts.prompts) + sum(1 for prompt in prompts.prompts if prompt.keys)
    others = {artifact.digest: artifact for artifact in artifacts if artifact.digest != reference.digest}
    with progress.task("answers", (1 + len(others)) * n_answers, "steps") as task:
        found = {
            artifact.digest: _write(artifact, prompts, n_gen, threads, task)
            for artifact in (reference, *others.values())
        }
    rows = tuple(replace(found[artifact.digest], ref=artifact.ref) for artifact in artifacts)
    return BehaviourReport(found[reference.digest], rows)


def _write(artifact: Artifact, prompts: PromptSet, n_gen: int, n_threads: int, task: Task) -> Behaviour:
    plain = Behaviour(artifact.ref, artifact.digest, prompts.sha256, n_gen)
    grammar = (resources.files("slmkit") / "data" / "json.gbnf").read_text(encoding="utf-8")
    task.describe(f"answers of {artifact.ref}")
    try:
        written = greedy(
            artifact.path,
            prompts.prompts,
            n_gen=n_gen,
            grammar=grammar,
            n_threads=n_threads,
            on_written=task.advance,
        )
    except EngineMissingError:
        raise
    except EngineError as error:
        return replace(plain, failure=Failure.of(error))
    return replace(
        plain,
        answers=written.answers,
        tokens_sha256=written.tokens_sha256,
        is_chat=written.is_chat,
        build=written.build,
    )
