"""What an importance matrix is collected from, when it is good enough, and what it says of each tensor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

CHUNK_TOKENS = 512
"""Tokens that are run at a time, each chunk without what was before it: llama-imatrix's default."""
CHECK_EVERY = 8
"""Chunks from one look at how much has changed to the next; what is collected is saved then, too."""
SAVE_EVERY_S = 10.0
"""Between looks it is saved at the end of a chunk when so much time has passed since it last was."""
SETTLED_SHARE = 0.025
"""So little of the importance has moved from one look to the next: a look that counts as settled."""
SETTLED_CHECKS = 2
"""So many of them in a row end the collecting."""

Reason = Literal["settled", "chunks", "text"]
"""Why it ended: nothing moves any more, as many chunks as asked for, or the end of the text."""

REASONS: dict[Reason, str] = {
    "settled": f"less than {SETTLED_SHARE:.1%} of the importance moved in each of the last {SETTLED_CHECKS} looks",
    "chunks": "as many as asked for",
    "text": "the end of the text",
}


@dataclass(frozen=True)
class Calibration:
    """The text that shows the model at work. `name` is how it is called: a corpus's name, or a file's."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of its UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class TensorStatistics:
    """Of the mean squares of the activations that one matrix is multiplied with, one for each column.

    `active` is the share of columns above 1e-5, `entropy` in bits that of the columns' shares, `entropy_share` relative
    to that of equal columns, `z_share` how many columns are more than a standard deviation above the mean, `cosine`
    that to the same matrix of the layer before (`None` in the first).
    """

    name: str
    layer: int | None
    tensor: str
    total: float
    minimum: float
    maximum: float
    mean: float
    deviation: float
    active: float
    n_columns: int
    entropy: float
    entropy_share: float
    z_share: float
    cosine: float | None


def is_settled(moved: list[float]) -> bool:
    """Whether the latest looks, in shares of the importance that moved, say that more text changes little."""
    return len(moved) >= SETTLED_CHECKS and max(moved[-SETTLED_CHECKS:]) < SETTLED_SHARE
