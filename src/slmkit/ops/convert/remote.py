"""A checkpoint on the Hub of which no weight is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase

from slmkit.core.progress import SILENT, Progress
from slmkit.errors import HubFileNotFoundError, OfflineError
from slmkit.hub import select
from slmkit.hub.cache import RemoteFile
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.download import download, missing_bytes
from slmkit.hub.headers import read_headers
from slmkit.ops.convert.unread import Headers, Unread

CONFIG = "config.json"
_NOT_READ = ("LICENSE*", "LICENCE*", "NOTICE*", "*.safetensors")
_IN_TOKENIZER_JSON = ("vocab.json", "merges.txt")


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
        missing = missing_bytes(hub, snapshot, [files[path] for path in paths])
        yield Unread(
            ref, folder, repo, snapshot.commit, lambda: _fetch(hub, snapshot, small, weights, progress), missing
        )


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
