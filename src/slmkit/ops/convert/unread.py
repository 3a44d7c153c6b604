"""A checkpoint of which no weight is read: enough for a plan of its GGUF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slmkit.core.progress import SILENT, Progress
from slmkit.formats.safetensors import Tensor, read_checkpoint
from slmkit.ops.convert.architecture import check_supported
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.plan import Plan, make_plan
from slmkit.ops.convert.stored import plain

Headers = Mapping[str, Mapping[str, Tensor]]
"""Of safetensors files by their names."""


@dataclass(frozen=True)
class Unread:
    """`ref` is what it is called, `model_id` and `commit` are what `convert` would put into the GGUF.

    `fetch` gets what `folder` lacks, and returns the headers of its weights; `None` when all is there. `missing_bytes`
    are those that pulling all of it would bring.
    """

    ref: str
    folder: Path
    model_id: str
    commit: str | None = None
    fetch: Callable[[], Headers] | None = None
    missing_bytes: int = 0

    def plan(self, *, outtype: str, pre: str | None = None, progress: Progress = SILENT) -> Plan:
        """What `convert` would write; raises its errors, and the `HubError`s."""
        check_supported(self.folder)  # first: an architecture that does not convert costs nothing more
        stored = None
        if self.fetch is not None:
            stored = plain(read_config(self.folder), read_checkpoint(self.folder, self.fetch()))
        return make_plan(
            self.folder,
            outtype=outtype,
            model_id=self.model_id,
            commit=self.commit,
            pre=pre,
            stored=stored,
            progress=progress,
        )
