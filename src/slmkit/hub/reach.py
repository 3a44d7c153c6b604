"""Does the Hub answer from here? For `doctor`."""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import constants

from slmkit.errors import NoNetworkError, OfflineError

TIMEOUT_S = 5.0


def cache_dir() -> Path:
    """Where the Hugging Face cache is."""
    return Path(constants.HF_HUB_CACHE)


def reach() -> str:
    """The endpoint, when it answers at all; raises `NoNetworkError`, or `OfflineError` in offline mode."""
    endpoint = str(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        raise OfflineError("offline mode (HF_HUB_OFFLINE is set)", hint="unset HF_HUB_OFFLINE")
    try:
        httpx.head(endpoint, timeout=TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        hint = "check the network, or HF_ENDPOINT"
        raise NoNetworkError(f"{endpoint} does not answer: {error}", hint=hint) from error
    return endpoint
