"""A hub, a client that is not patient, and child processes that see only their own environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slmkit.hub.client import HubClient
from slmkit.hub.transport import Backoff
from tests.hubserver import HubServer

QUICK = Backoff(tries=3, first_s=0.001, longest_s=5)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Iterator[HubClient]:
    with HubClient(endpoint=hub.url, token=False, cache_dir=tmp_path / "hub", backoff=QUICK) as client:
        yield client


@pytest.fixture
def child(hub: HubServer, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start Python with the hub as `HF_ENDPOINT` and a fresh `HF_HOME` whose cache is that of `client`."""

    def start(code: str, **variables: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1,localhost", **variables}
        return subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start
