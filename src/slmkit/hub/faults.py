"""What can go wrong between here and the Hub, as errors of ours: no httpx exception leaves `hub/`.

The Hub names its refusals in `X-Error-Code` (RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo) and
`X-Error-Message`; a 401 without a code is how it answers for a repository that does not exist, or that nobody without
the right token may know of (seen in huggingface_hub.utils.hf_raise_for_status, versions 0.36 to 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from slmkit.errors import (
    ConnectionCutError,
    GatedRepoError,
    HubError,
    HubFileNotFoundError,
    HubServerError,
    NoNetworkError,
    RateLimitedError,
    RepoNotFoundError,
    RevisionNotFoundError,
    UnauthorizedError,
)

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_AGAIN = "run the same command again: it continues where it stopped"


@dataclass(frozen=True)
class Wanted:
    """What was asked for, so that an error can name it."""

    endpoint: str
    repo: str
    revision: str
    path: str | None = None


class PassingError(Exception):
    """A failure that may go away by itself.

    `error` is what to raise when it does not, `wait_s` how long the server asked to wait (`None`: it did not say).
    """

    def __init__(self, error: HubError, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s


def from_exception(error: httpx.HTTPError | httpx.InvalidURL, wanted: Wanted, *, reached: bool) -> Exception:
    """A `PassingError` or a `HubError` for an exception of httpx.

    `reached` says whether the Hub has answered before: if not, there is no network, and waiting will not help.
    """
    what = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        unreachable = NoNetworkError(
            f"cannot reach {wanted.endpoint}: {what}",
            hint="check the network and HF_ENDPOINT; `--offline` uses what is in the cache",
        )
        return PassingError(unreachable) if reached else unreachable
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return HubError(f"not a usable address: {wanted.endpoint}: {what}", hint="check HF_ENDPOINT")
    if isinstance(error, (httpx.TimeoutException, httpx.NetworkError, httpx.ProtocolError)):
        return PassingError(ConnectionCutError(f"the connection to the Hub broke off: {what}", hint=_AGAIN))
    return HubServerError(f"the Hub's answer makes no sense: {what}", hint="check HF_ENDPOINT, or try again later")


def from_response(response: httpx.Response, wanted: Wanted) -> Exception:
    """A `PassingError` or a `HubError` for an answer whose status is 400 or above."""
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    message = response.headers.get("X-Error-Message", "")
    told = f"HTTP {status}" + (f", {message}" if message else "")
    if status == 429:
        limited = RateLimitedError("the Hub asks to slow down (HTTP 429)", hint=f"wait some minutes, or {_LOGIN}")
        return PassingError(limited, _retry_after_s(response))
    if status >= 500 or status == 408:
        failed = HubServerError(f"the Hub failed ({told})", hint="try again later: status.huggingface.co")
        return PassingError(failed, _retry_after_s(response))
    if code == "GatedRepo" or (status == 403 and "gated" in message.lower()):
        return GatedRepoError(
            f"{wanted.repo} is gated: its owner must let you in",
            hint=f"ask for access at {wanted.endpoint}/{wanted.repo}, then {_LOGIN}",
        )
    if code == "RevisionNotFound":
        return RevisionNotFoundError(
            f"{wanted.repo} has no revision {wanted.revision!r}",
            hint=f"its branches and tags: {wanted.endpoint}/{wanted.repo}/tree/main",
        )
    if code == "EntryNotFound" or (status == 404 and wanted.path and not code):
        return HubFileNotFoundError(f"{wanted.repo} has no file {wanted.path} at {wanted.revision}")
    has_token = "Authorization" in response.request.headers
    if status in (401, 403) and code != "RepoNotFound" and (has_token or "credentials" in message or status == 403):
        return UnauthorizedError(f"the Hub does not accept the token for {wanted.repo} ({told})", hint=_LOGIN)
    if status in (401, 404):
        return RepoNotFoundError(
            f"no repository {wanted.repo} on {wanted.endpoint}", hint=f"check the name; if it is private, {_LOGIN}"
        )
    return HubError(f"the Hub refuses {wanted.path or wanted.repo} ({told})")


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if value.isdecimal() else None
