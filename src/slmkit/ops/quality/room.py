"""How many files of a reading are loaded at a time, and who is told of it.

What a reading takes does not depend on the length of the text: the files that are loaded, and the logits of one batch
for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.units import size
from slmkit.host import memory

LOADED = 2
"""A file takes up to as many times its size: mapped, and once more in the order that is faster to multiply."""


def fit_together(base: Artifact | None, others: Sequence[Artifact], progress: Progress) -> bool:
    """Whether all stay loaded: where that takes less than half of the memory that is free, and where there is only one
    beside the base. Else the base stays and the others take turns in each batch of chunks: it is read once, too.
    """
    base_bytes = LOADED * base.size_bytes if base else 0
    sizes = [LOADED * other.size_bytes for other in others]
    least_bytes, every_bytes = base_bytes + max(sizes, default=0), base_bytes + sum(sizes)
    free_bytes = memory.available_bytes()
    if least_bytes > free_bytes:
        progress.warn(
            f"reading takes up to {size(least_bytes)} of memory, {size(free_bytes)} are free: "
            "`--save-base` reads the base by itself, `--base` takes what it saved"
        )
    if len(others) < 2 or every_bytes < free_bytes / 2:
        return True
    progress.say(
        f"{len(others)} files would take up to {size(every_bytes)} of memory with their base, {size(free_bytes)} are "
        f"free: they are loaded in turn, which takes up to {size(least_bytes)}"
    )
    return False
