"""A checkpoint of which no weight is read, and on the Hub none is downloaded: enough for a plan of its GGUF."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from slmkit.core.progress import SILENT, Progress
from slmkit.errors import HubFileNotFoundError, OfflineError
from slmkit.formats.safetensors import Tensor, read_checkpoint
from slmkit.hub import select
from slmkit.hub.cache import RemoteFile
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.download import download
from slmkit.hub.headers import read_headers
from slmkit.ops.convert.architecture import check_supported
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.plan import Plan, make_plan
from slmkit.ops.convert.stored import plain

CONFIG = "config.json"
_NOT_READ = ("LICENSE*", "LICENCE*", "NOTICE*", "*.safetensors")
_IN_TOKENIZER_JSON = ("vocab.json", "merges.txt")

Headers = Mapping[str, Mapping[str, Tensor]]
"""Of safetensors files by their names."""


@dataclass(frozen=True)
class Unread:
    """`ref` is what it is called, `model_id` and `commit` are what `convert` would put into the GGUF.

    `fetch` gets what `folder` lacks, and returns the headers of its weights; `None` when all is there.
    """

    ref: str
    folder: Path
    model_id: str
    commit: str | None = None
    fetch: Callable[[], Headers] | None = None

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


@contextmanager
def open_hub(
    repo: str,
    revision: str | None = None,
    *,
    offline: bool = False,
    progress: Progress = SILENT,
    client: HubClient | None = None,
) -> Iterator[Unread]:
    """A repository on the Hub; offline, what the cache has of it.

    Small files go into the Hugging Face cache, of the weights only the headers are asked for. Of these, `Unread.fetch`
    gets all but config.json. Raises `HubError`s; `HubFileNotFoundError` is for a repository without a checkpoint.
    """
    ref = f"{repo}@{revision}" if revision else repo
    with client or HubClient(offline=offline, progress=progress) as hub:
        snapshot = hub.snapshot(repo, revision)
        try:
            paths = select.checkpoint_files(repo, snapshot.paths)
        except HubFileNotFoundError as error:
            if not hub.offline:
                raise
            raise OfflineError(
                f"{ref} is not complete in the cache, and offline mode is on",
                hint="run the same command once without HF_HUB_OFFLINE",
            ) from error
        files = {file.path: file for file in snapshot.files}
        folder = download(hub, snapshot, [files[CONFIG]]).root
        small = [files[path] for path in paths if _is_read(path, paths)]
        weights = [files[path] for path in paths if path.endswith(".safetensors")]
        yield Unread(ref, folder, repo, snapshot.commit, lambda: _fetch(hub, snapshot, small, weights, progress))


def _fetch(
    hub: HubClient, snapshot: RepoSnapshot, small: list[RemoteFile], weights: list[RemoteFile], progress: Progress
) -> Headers:
    """Both at the same time: headers are a matter of waiting, tokenizers of bytes."""
    with ThreadPoolExecutor(1) as pool:
        headers = pool.submit(read_headers, hub, snapshot, weights)
        download(hub, snapshot, small, progress=progress)
        return headers.result()


def _is_read(path: str, paths: tuple[str, ...]) -> bool:
    """Whether the converter looks at it."""
    skipped = (*_NOT_READ, *(_IN_TOKENIZER_JSON if "tokenizer.json" in paths else ()))
    return not any(fnmatchcase(path, pattern) for pattern in skipped)
