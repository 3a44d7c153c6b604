from __future__ import annotations

import hashlib
import inspect
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from slmkit import errors
from slmkit.hub.client import HubClient
from slmkit.hub.faults import PassingError, Wanted, from_exception
from slmkit.hub.transport import Backoff
from tests.hub.conftest import QUICK
from tests.hubserver import HubServer, git_oid

FILES = {
    "model.safetensors": b"weights" * 1000,
    "config.json": b"{}",
    **{f"extra-{n}.txt": b"%d" % n for n in range(9)},
}


def test_a_snapshot_lists_every_page_with_sizes_and_digests(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    snapshot = client.snapshot("org/model")
    assert (snapshot.commit, snapshot.revision, snapshot.gated) == (repo.commit, "main", False)
    assert sorted(snapshot.paths) == sorted(FILES)
    assert len(hub.seen(f"/tree/{repo.commit}")) == 3
    by_path = {file.path: file for file in snapshot.files}
    large, small = by_path["model.safetensors"], by_path["config.json"]
    assert (large.size_bytes, large.sha256) == (7000, hashlib.sha256(FILES["model.safetensors"]).hexdigest())
    assert large.blob_name == large.sha256
    assert (small.size_bytes, small.sha256, small.blob_name) == (2, None, git_oid(b"{}"))


def test_a_revision_may_have_a_slash(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    repo.refs["refs/pr/1"] = repo.commit
    assert client.snapshot("org/model", "refs/pr/1").commit == repo.commit


def test_no_such_repository(hub: HubServer, client: HubClient) -> None:
    with pytest.raises(errors.RepoNotFoundError, match="org/nothing") as caught:
        client.snapshot("org/nothing")
    assert caught.value.hint is not None
    assert "hf auth login" in caught.value.hint


def test_no_such_revision(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    with pytest.raises(errors.RevisionNotFoundError, match="v9"):
        client.snapshot("org/model", "v9")


def test_a_refused_token(tmp_path: Path) -> None:
    with HubServer(token="right") as hub, HubClient(endpoint=hub.url, token="wrong", cache_dir=tmp_path) as client:
        hub.add("org/model", FILES)
        with pytest.raises(errors.UnauthorizedError) as caught:
            client.snapshot("org/model")
        assert caught.value.hint is not None
        assert "HF_TOKEN" in caught.value.hint


def test_a_missing_repository_with_a_good_token_is_not_a_token_problem(tmp_path: Path) -> None:
    with HubServer(token="right") as hub, HubClient(endpoint=hub.url, token="right", cache_dir=tmp_path) as client:
        with pytest.raises(errors.RepoNotFoundError):
            client.snapshot("org/nothing")
        assert hub.log[0].token == "Bearer right"


@pytest.mark.parametrize(
    ("status", "expected"), [(429, errors.RateLimitedError), (503, errors.HubServerError), (500, errors.HubServerError)]
)
def test_busy_servers_are_asked_again(
    hub: HubServer, client: HubClient, status: int, expected: type[errors.HubError]
) -> None:
    hub.add("org/model", FILES)
    hub.fail("/revision/main", status=status, times=2)
    assert client.snapshot("org/model").commit
    hub.fail("/revision/main", status=status)
    with pytest.raises(expected):
        client.snapshot("org/model")
    assert len(hub.seen("/revision/main")) == 3 + 3


def test_a_server_that_says_when_is_believed(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    never = Backoff(tries=3, first_s=1000, longest_s=1000)
    hub.fail("/revision/main", status=429, times=1, headers={"Retry-After": "0"})
    with HubClient(endpoint=hub.url, token=False, cache_dir=tmp_path, backoff=never) as client:
        client.snapshot("org/model")  # its own wait would outlast the test
    hub.fail("/revision/main", status=429, headers={"Retry-After": "3600"})
    client = HubClient(endpoint=hub.url, token=False, cache_dir=tmp_path, backoff=QUICK)
    with client, pytest.raises(errors.RateLimitedError):
        client.snapshot("org/model")
    assert len(hub.seen("/revision/main")) == 2 + 1


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        patient = Backoff(tries=2, first_s=1000)
        client = HubClient(endpoint=url, token=False, cache_dir=tmp_path, backoff=patient)
        with client, pytest.raises(errors.NoNetworkError) as caught:
            client.snapshot("org/model")
    assert caught.value.hint is not None
    assert "--offline" in caught.value.hint


@pytest.mark.parametrize("endpoint", ["ftp://127.0.0.1", "http://[", "nonsense"])
def test_a_wrong_endpoint(endpoint: str, tmp_path: Path) -> None:
    client = HubClient(endpoint=endpoint, token=False, cache_dir=tmp_path, backoff=QUICK)
    with client, pytest.raises(errors.HubError) as caught:
        client.snapshot("org/model")
    assert caught.value.hint is not None
    assert "HF_ENDPOINT" in caught.value.hint


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b"{}"])
def test_another_server_behind_the_endpoint(
    hub: HubServer, client: HubClient, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("/revision/main", status=200)
    monkeypatch.setattr("tests.hubserver.REFUSAL", body)
    with pytest.raises(errors.HubServerError, match=hub.url):
        client.snapshot("org/model")


def test_every_exception_of_httpx_becomes_ours() -> None:
    wanted = Wanted("https://hub", "org/model", "main")
    families = (httpx.HTTPError, httpx.InvalidURL)
    kinds = [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, families)]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind.__new__(kind)
        Exception.__init__(error, "why")
        for reached in (False, True):
            ours = from_exception(error, wanted, reached=reached)
            final = ours.error if isinstance(ours, PassingError) else ours
            assert isinstance(final, errors.HubError), kind
            assert "why" in final.message
            assert final.hint


def test_the_environment_is_respected(
    hub: HubServer, child: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    hub.add("org/model", FILES)
    code = "from slmkit.hub.client import HubClient as C; c = C(); print(c.snapshot('org/model').commit, c.cache_dir)"
    out, err = child(code, HF_TOKEN="hf_secret").communicate(timeout=60)
    assert out.split() == [hub.repos["org/model"].commit, str(tmp_path / "hub")], err
    assert {seen.token for seen in hub.log} == {"Bearer hf_secret"}
    out, err = child(code, HF_HUB_CACHE=str(tmp_path / "elsewhere")).communicate(timeout=60)
    assert out.split()[1] == str(tmp_path / "elsewhere"), err
    hub.forget()
    _, err = child(code, HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert "OfflineError" in err
    assert hub.log == []
