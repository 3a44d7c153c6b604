"""What a repository on the Hub holds at a commit.

Routes: `GET /api/models/{repo}/revision/{rev}` names the commit, `GET /api/models/{repo}/tree/{commit}?recursive=true`
lists its files page by page (`Link: rel="next"`), `GET /{repo}/resolve/{commit}/{path}` is a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import httpx
from huggingface_hub import constants, get_token

from slmkit._version import __version__
from slmkit.core.progress import SILENT, Progress
from slmkit.errors import HubServerError, OfflineError
from slmkit.hub import cache
from slmkit.hub.cache import RemoteFile
from slmkit.hub.faults import Wanted
from slmkit.hub.transport import Backoff, Patience, Transport


@dataclass(frozen=True)
class RepoSnapshot:
    """A repository at one commit. `gated` is what the Hub says (`False`, `"auto"`, `"manual"`)."""

    repo: str
    revision: str
    commit: str
    gated: bool | str
    files: tuple[RemoteFile, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all its files."""
        return tuple(file.path for file in self.files)


class HubClient:
    """The Hub, or with `offline` only what the cache has of it.

    Endpoint, token, cache folder and offline mode come from `HF_ENDPOINT`, `HF_TOKEN` (or `hf auth login`),
    `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE`, which huggingface_hub reads when it is imported; what is given
    here goes before. `token=False` sends none.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | Literal[False] | None = None,
        cache_dir: Path | None = None,
        offline: bool = False,
        backoff: Backoff | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.cache_dir = cache_dir or Path(constants.HF_HUB_CACHE)
        self.offline = offline or bool(constants.HF_HUB_OFFLINE)
        self._transport = Transport(
            _headers(token),
            timeout_s=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            backoff=backoff or Backoff(),
            progress=progress,
        )

    def __enter__(self) -> HubClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    def snapshot(self, repo: str, revision: str | None = None) -> RepoSnapshot:
        """The repository at a branch, tag or commit (by default the Hub's `main`).

        Offline, what the cache has of it. Raises `RepoNotFoundError`, `RevisionNotFoundError`, `GatedRepoError`,
        `UnauthorizedError`, `RateLimitedError`, `HubServerError`, `ConnectionCutError`, `NoNetworkError`,
        `OfflineError`.
        """
        revision = revision or constants.DEFAULT_REVISION
        if self.offline:
            return self._cached(repo, revision)
        wanted = Wanted(self.endpoint, repo, revision)
        about, _ = self._transport.json(f"{self._api(repo)}/revision/{quote(revision, safe='')}", wanted)
        try:
            commit, gated = str(about["sha"]), about.get("gated", False)
            files = tuple(_remote_file(entry) for entry in self._tree(wanted, commit) if entry["type"] == "file")
        except (KeyError, TypeError, AttributeError) as error:
            raise HubServerError(f"{self.endpoint} does not speak the Hub's language", hint="check HF_ENDPOINT") from (
                error
            )
        return RepoSnapshot(repo, revision, commit, gated, files)

    def patience(self) -> Patience:
        """For the tries of one file."""
        return self._transport.patience()

    @contextmanager
    def open(
        self, snapshot: RepoSnapshot, file: RemoteFile, offset: int, stop: int | None = None
    ) -> Iterator[httpx.Response]:
        """The file's bytes from `offset` on, up to `stop`, for one try: 206, 200 (the whole file) or 416.

        Raises `PassingError` for what may go away by itself, and the `HubError`s.
        """
        if self.offline:
            raise OfflineError(
                f"{file.path} of {snapshot.repo} is not complete in the cache, and offline mode is on",
                hint=f"without `--offline` and HF_HUB_OFFLINE: `slmkit pull {snapshot.repo}`",
            )
        url = f"{self.endpoint}/{snapshot.repo}/resolve/{snapshot.commit}/{quote(file.path)}"
        last = "" if stop is None else stop - 1
        headers = {"Range": f"bytes={offset}-{last}"} if offset or stop is not None else None
        wanted = Wanted(self.endpoint, snapshot.repo, snapshot.revision, file.path)
        with self._transport.stream(url, wanted, headers) as response:
            yield response

    def _api(self, repo: str) -> str:
        return f"{self.endpoint}/api/models/{repo}"

    def _tree(self, wanted: Wanted, commit: str) -> Iterator[dict[str, Any]]:
        url: str | None = f"{self._api(wanted.repo)}/tree/{commit}?recursive=true"
        while url:
            page, url = self._transport.json(url, wanted)
            yield from page

    def _cached(self, repo: str, revision: str) -> RepoSnapshot:
        layout = cache.RepoCache(self.cache_dir, repo)
        commit = layout.commit(revision)
        files = layout.files(commit) if commit else ()
        if commit is None or not files:
            raise OfflineError(
                f"{repo} at {revision} is not in the cache, and offline mode is on",
                hint=f"without `--offline` and HF_HUB_OFFLINE: `slmkit pull {repo}`",
            )
        return RepoSnapshot(repo, revision, commit, False, files)


def _headers(token: str | Literal[False] | None) -> dict[str, str]:
    if token is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        token = get_token() or False
    headers = {"User-Agent": f"slmkit/{__version__}"}
    return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    lfs = entry.get("lfs")
    if lfs:
        return RemoteFile(entry["path"], lfs["size"], lfs["oid"], entry["oid"])
    return RemoteFile(entry["path"], entry["size"], None, entry["oid"])
