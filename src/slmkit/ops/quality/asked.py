"""What models are asked besides reading: questions with choices, and prompts that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmkit.core.artifact import Artifact
from slmkit.core.behaviour import BehaviourReport
from slmkit.core.progress import Progress
from slmkit.core.tasks import TaskResult, TaskSpec
from slmkit.ops.quality.behaviour import behaviour
from slmkit.ops.quality.tasks import answer


@dataclass(frozen=True)
class Asked:
    """The questions of `task`, and with `behaviour` the prompts that come with slmkit; nothing by default."""

    task: TaskSpec | None = None
    behaviour: bool = False

    def ask(
        self, base: Artifact | None, others: Sequence[Artifact], progress: Progress, n_threads: int | None
    ) -> tuple[tuple[TaskResult, ...], BehaviourReport | None]:
        """The base and the others; prompts only where there is a base, whose path is the measure."""
        every = [*([base] if base else []), *others]
        results = answer(every, self.task, progress, n_threads=n_threads) if self.task else ()
        written = behaviour(base, others, progress, n_threads=n_threads) if self.behaviour and base else None
        return results, written
