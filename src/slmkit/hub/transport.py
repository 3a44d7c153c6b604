"""One HTTP session with the Hub: token, redirects, retries.

httpx rather than huggingface_hub's own session, because that changed its library between 1.x and 2.x. Token, user
agent and environment (`HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_DOWNLOAD_TIMEOUT`, proxies) are still read by
huggingface_hub and httpx, not here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from slmkit.core.progress import SILENT, Progress
from slmkit.core.units import duration
from slmkit.errors import HubServerError
from slmkit.hub.faults import PassingError, Wanted, from_exception, from_response


@dataclass(frozen=True)
class Backoff:
    """How patient to be: `tries` in a row without a byte of progress, waiting `first_s`, then twice as long each time.

    A server that asks (`Retry-After`) for more than `longest_s` gets no more tries.
    """

    tries: int = 5
    first_s: float = 1.0
    longest_s: float = 120.0


class Patience:
    """The tries of one request."""

    def __init__(self, backoff: Backoff, progress: Progress) -> None:
        self._backoff = backoff
        self._progress = progress
        self._failures = 0

    def renew(self) -> None:
        """Something arrived: count from the beginning."""
        self._failures = 0

    def bear(self, passing: PassingError) -> None:
        """Wait before the next try, or raise what the failure was when it has happened too often."""
        wait_s = passing.wait_s
        if wait_s is None:
            wait_s = min(self._backoff.first_s * 2**self._failures, self._backoff.longest_s)
        self._failures += 1
        if self._failures >= self._backoff.tries or wait_s > self._backoff.longest_s:
            raise passing.error from passing.__cause__
        self._progress.warn(f"{passing.error.message}; trying again in {duration(wait_s)}")
        time.sleep(wait_s)


class Transport:
    """GET with our errors. Sent to another host, a request loses its token (httpx does that on redirects)."""

    def __init__(
        self, headers: Mapping[str, str], *, timeout_s: float, backoff: Backoff, progress: Progress = SILENT
    ) -> None:
        # Ranges and digests are those of the stored bytes: no compression on the way.
        headers = {**headers, "Accept-Encoding": "identity"}
        self._client = httpx.Client(headers=headers, timeout=timeout_s, follow_redirects=True)
        self._backoff = backoff
        self._progress = progress
        self._reached = False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def patience(self) -> Patience:
        """Fresh patience for one transfer."""
        return Patience(self._backoff, self._progress)

    @contextmanager
    def stream(self, url: str, wanted: Wanted, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """One try. Answers 416 are given back; raises `PassingError` and `HubError`, also while the body is read."""
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                self._reached = True
                if response.status_code >= 400 and response.status_code != 416:
                    raise from_response(response, wanted)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise from_exception(error, wanted, reached=self._reached) from error

    def json(self, url: str, wanted: Wanted) -> tuple[Any, str | None]:
        """A JSON document and the address of its next page; retried until the patience ends."""
        patience = self.patience()
        while True:
            try:
                with self.stream(url, wanted) as response:
                    response.read()
                    return response.json(), response.links.get("next", {}).get("url")
            except PassingError as passing:
                patience.bear(passing)
            except ValueError as error:
                raise HubServerError(f"{url} did not answer with JSON", hint="check HF_ENDPOINT") from error
