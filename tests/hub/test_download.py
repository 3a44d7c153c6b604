from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from filelock import FileLock

from slmkit import errors
from slmkit.core.progress import Task, Unit
from slmkit.hub.cache import RemoteFile, RepoCache
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.download import Downloaded, download
from tests.hub.conftest import QUICK
from tests.hubserver import HubServer, git_oid

WEIGHTS = random.Random(1).randbytes(3_000_000)
WEIGHTS_SHA = hashlib.sha256(WEIGHTS).hexdigest()
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "sub/folder/chat.jinja": b"{{ x }}", "empty": b""}
NAME = "model.safetensors"

Child = Callable[..., subprocess.Popen[str]]
CHILD = """
from slmkit.hub.client import HubClient
from slmkit.hub.download import download
with HubClient() as client:
    snapshot = client.snapshot("org/model")
    print(download(client, snapshot, snapshot.files).root)
"""


class Listener:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.total = self.begun_at = self.position = 0

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        assert unit == "bytes"
        self.total, self.begun_at, self.position = total or 0, done, done
        yield self

    def advance(self, amount: int = 1) -> None:
        self.position += amount

    def set_total(self, total: int) -> None:
        self.total = total

    def describe(self, text: str) -> None:
        self.said.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


def get(client: HubClient, listener: Listener | None = None) -> Downloaded:
    snapshot = client.snapshot("org/model")
    return download(client, snapshot, snapshot.files, progress=listener or Listener())


def part_path(client: HubClient) -> Path:
    return client.cache_dir / "models--org--model" / "blobs" / f"{WEIGHTS_SHA}.slmkit-part"


def wait_for_part(client: HubClient, writer: subprocess.Popen[str], size_bytes: int) -> None:
    """Until the child has written that many bytes; where the server holds, it cannot write more."""
    deadline = time.monotonic() + 60
    while not (part_path(client).exists() and part_path(client).stat().st_size == size_bytes):
        assert writer.poll() is None, writer.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leave_part(client: HubClient, data: bytes) -> None:
    part_path(client).parent.mkdir(parents=True)
    part_path(client).write_bytes(data)


def assert_nothing_looks_complete(client: HubClient, commit: str) -> None:
    assert not part_path(client).with_suffix("").exists()
    assert not (client.cache_dir / "models--org--model" / "snapshots" / commit / NAME).exists()
    assert not (client.cache_dir / "models--org--model" / "refs").exists()


def test_what_arrives_is_what_the_repository_has(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    listener = Listener()
    got = get(client, listener)
    assert got.root == client.cache_dir / "models--org--model" / "snapshots" / repo.commit
    for file in got.files:
        content = FILES[file.name]
        assert (got.root / file.name).read_bytes() == content
        assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (listener.begun_at, listener.position) == (0, listener.total)
    assert listener.total == sum(map(len, FILES.values()))
    assert (got.root / NAME).readlink() == Path(f"../../blobs/{WEIGHTS_SHA}")
    assert (got.root / "sub/folder/chat.jinja").readlink() == Path(f"../../../../blobs/{git_oid(b'{{ x }}')}")
    assert not list(got.root.parents[1].rglob("*.slmkit*"))


def test_huggingface_hub_reads_what_we_wrote(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    got = get(client)
    found = huggingface_hub.snapshot_download("org/model", cache_dir=client.cache_dir, local_files_only=True)
    assert Path(found) == got.root
    assert huggingface_hub.try_to_load_from_cache("org/model", NAME, cache_dir=client.cache_dir) == str(got.root / NAME)
    scan = huggingface_hub.scan_cache_dir(client.cache_dir)
    assert scan.warnings == []
    (entry,) = scan.repos
    assert (entry.repo_id, entry.size_on_disk) == ("org/model", sum(map(len, FILES.values())))
    (revision,) = entry.revisions
    assert (revision.commit_hash, set(revision.refs), len(revision.files)) == (repo.commit, {"main"}, len(FILES))


def test_we_read_what_huggingface_hub_wrote(hub: HubServer, client: HubClient, child: Child) -> None:
    hub.add("org/model", FILES)
    code = "import huggingface_hub; print(huggingface_hub.snapshot_download('org/model'))"
    out, err = child(code, HF_HUB_DISABLE_XET="1").communicate(timeout=60)
    assert out, err
    hub.forget()
    assert str(get(client).root) == out.strip()
    assert not [seen for seen in hub.log if "/resolve/" in seen.path or seen.host == "storage"]


def test_a_second_download_asks_for_no_file(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    first = get(client)
    hub.forget()
    listener = Listener()
    assert get(client, listener) == first
    assert not [seen for seen in hub.log if "/resolve/" in seen.path]
    assert listener.begun_at == listener.position == listener.total


def test_killed_at_sixty_percent_the_next_process_asks_for_the_rest(
    hub: HubServer, client: HubClient, child: Child
) -> None:
    repo = hub.add("org/model", FILES)
    held = len(WEIGHTS) * 6 // 10
    hold = hub.hold(NAME, held)
    victim = child(CHILD)
    wait_for_part(client, victim, held)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    victim.communicate()
    hold.go.set()
    assert_nothing_looks_complete(client, repo.commit)
    hub.forget()
    out, err = child(CHILD).communicate(timeout=60)
    assert (Path(out.strip()) / NAME).read_bytes() == WEIGHTS, err
    (seen,) = hub.seen(NAME, host="storage")
    assert (seen.status, seen.range, seen.sent_bytes) == (206, f"bytes={held}-", len(WEIGHTS) - held)
    assert not part_path(client).exists()


def test_ctrl_c_leaves_a_part_that_is_continued(hub: HubServer, client: HubClient, child: Child) -> None:
    hub.add("org/model", FILES)
    hold = hub.hold(NAME, 1_000_000)
    victim = child(CHILD)
    wait_for_part(client, victim, 1_000_000)
    victim.send_signal(signal.SIGINT)
    _, err = victim.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    hold.go.set()
    listener = Listener()
    get(client, listener)
    assert listener.begun_at >= 1_000_000
    assert hub.seen(NAME, host="storage")[-1].sent_bytes == len(WEIGHTS) - 1_000_000


def test_the_token_stays_with_the_hub(tmp_path: Path) -> None:
    with HubServer(token="secret") as hub:
        hub.add("org/model", FILES, gated=True)
        with HubClient(endpoint=hub.url, token="secret", cache_dir=tmp_path, backoff=QUICK) as client:
            get(client)
        assert {seen.token for seen in hub.log if seen.host == "hub"} == {"Bearer secret"}
        assert [seen.token for seen in hub.log if seen.host == "storage"] == [None]


def test_a_gated_repository_says_where_to_ask(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES, gated=True)
    with pytest.raises(errors.GatedRepoError) as caught:
        get(client)
    assert caught.value.hint is not None
    assert f"{hub.url}/org/model" in caught.value.hint
    assert not list(client.cache_dir.rglob("*.slmkit-part"))
    assert_nothing_looks_complete(client, repo.commit)


def test_cut_again_and_again_it_goes_on_where_it_stopped(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    hub.fail(NAME, host="storage", cut_after=400_000, times=7)  # more cuts than tries without progress
    listener = Listener()
    get(client, listener)
    starts = [seen.range for seen in hub.seen(NAME, host="storage")]
    assert starts == [None, *(f"bytes={n * 400_000}-" for n in range(1, 8))]
    assert sum(seen.sent_bytes for seen in hub.seen(NAME, host="storage")) == len(WEIGHTS)
    assert listener.position == listener.total
    assert len(listener.warned) == 0


def test_cut_without_progress_it_gives_up_and_keeps_the_part(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    hub.fail(NAME, host="storage", cut_after=500_000, times=1)
    hub.fail(NAME, host="storage", cut_after=0)
    with pytest.raises(errors.ConnectionCutError) as caught:
        get(client)
    assert caught.value.hint is not None
    assert "same command again" in caught.value.hint
    assert part_path(client).read_bytes() == WEIGHTS[:500_000]
    assert_nothing_looks_complete(client, repo.commit)
    hub.faults.clear()
    get(client)
    assert hub.seen(NAME, host="storage")[-1].range == "bytes=500000-"


@pytest.mark.parametrize("status", [429, 503])
def test_busy_storage_is_asked_again(hub: HubServer, client: HubClient, status: int) -> None:
    hub.add("org/model", FILES)
    hub.fail(NAME, host="storage", status=status, times=2)
    get(client)
    hub.fail("config.json", host="hub", status=status)
    shutil.rmtree(client.cache_dir)
    expected = errors.RateLimitedError if status == 429 else errors.HubServerError
    with pytest.raises(expected):
        get(client)


@pytest.mark.parametrize("name", [NAME, "config.json"])
def test_wrong_bytes_never_get_a_name(hub: HubServer, client: HubClient, name: str) -> None:
    hub.add("org/model", FILES)
    other = bytes(len(FILES[name]))
    hub.fail(f"/{name}", host="storage" if name == NAME else "hub", body=other)
    with pytest.raises(errors.WrongBytesError, match=name):
        get(client)
    left = [path.read_bytes() for path in client.cache_dir.rglob("*") if path.is_file()]
    assert other not in left
    assert not list(client.cache_dir.rglob("*.slmkit-part"))


@pytest.mark.parametrize("body", [WEIGHTS + b"more", WEIGHTS[:-1], b"<html>pay for the wifi</html>"])
def test_another_size_is_seen_before_the_bytes_are_taken(hub: HubServer, client: HubClient, body: bytes) -> None:
    repo = hub.add("org/model", FILES)
    hub.fail(NAME, host="storage", body=body)
    with pytest.raises(errors.WrongBytesError):
        get(client)
    assert len(hub.seen(NAME, host="storage")) == 1
    assert_nothing_looks_complete(client, repo.commit)


def test_a_storage_that_announces_another_file_is_not_read(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    other = {"Location": f"{hub.storage_url}/blob/org--model/{NAME}", "X-Linked-Etag": f'"{"0" * 64}"'}
    hub.fail(NAME, status=302, headers=other)
    leave_part(client, WEIGHTS[:1_000_000])
    with pytest.raises(errors.WrongBytesError):
        get(client)
    assert_nothing_looks_complete(client, repo.commit)


def test_a_cache_that_cannot_be_written_to(hub: HubServer, client: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patched, because root may write everywhere."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    hub.add("org/model", FILES)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(errors.HubError, match="cannot write to the Hugging Face cache") as caught:
        get(client)
    assert caught.value.hint is not None
    assert "HF_HUB_CACHE" in caught.value.hint


def test_a_damaged_part_is_not_built_upon(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    leave_part(client, bytes(1_000_000))
    listener = Listener()
    got = get(client, listener)
    assert (got.root / NAME).read_bytes() == WEIGHTS
    assert [seen.range for seen in hub.seen(NAME, host="storage")] == ["bytes=1000000-", None]
    assert "damaged" in listener.warned[0]
    assert listener.position == listener.total


def test_a_part_that_is_too_long_is_dropped(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    leave_part(client, WEIGHTS + b"x")
    assert (get(client).root / NAME).read_bytes() == WEIGHTS
    assert hub.seen(NAME, host="storage")[0].range is None


def test_a_part_with_all_bytes_only_needs_its_name(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    leave_part(client, WEIGHTS)
    assert (get(client).root / NAME).read_bytes() == WEIGHTS
    assert hub.seen(NAME) == []


def test_a_server_that_knows_no_ranges_starts_over(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    hub.fail(NAME, host="storage", ignore_range=True)
    leave_part(client, WEIGHTS[:1_000_000])
    listener = Listener()
    assert (get(client, listener).root / NAME).read_bytes() == WEIGHTS
    assert hub.seen(NAME, host="storage")[0].sent_bytes == len(WEIGHTS)
    assert listener.position == listener.total


def test_a_refused_range_starts_over(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    hub.fail(NAME, host="storage", status=416, times=1)
    leave_part(client, WEIGHTS[:1_000_000])
    assert (get(client).root / NAME).read_bytes() == WEIGHTS
    assert [seen.range for seen in hub.seen(NAME, host="storage")] == ["bytes=1000000-", None]


def test_damage_in_the_cache_is_found_and_mended(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    blob = (get(client).root / NAME).resolve()
    blob.write_bytes(bytes(len(WEIGHTS)))
    listener = Listener()
    get(client, listener)
    assert blob.read_bytes() == WEIGHTS
    assert "damaged" in listener.warned[0]
    assert listener.position == listener.total


def test_two_files_with_the_same_bytes_travel_once(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS})
    listener = Listener()
    got = get(client, listener)
    assert (got.root / "b.safetensors").read_bytes() == WEIGHTS
    assert len([seen for seen in hub.log if seen.host == "storage"]) == 1
    assert listener.position == listener.total == 2 * len(WEIGHTS)


def test_whoever_comes_second_waits_and_finds_it_done(hub: HubServer, client: HubClient, child: Child) -> None:
    hub.add("org/model", FILES)
    hold = hub.hold(NAME, 1000)
    first = child(CHILD)
    assert hold.reached.wait(60)
    listener = Listener()

    def let_go_when_waiting(text: str) -> None:
        listener.said.append(text)
        hold.go.set()

    listener.say = let_go_when_waiting  # type: ignore[method-assign]
    got = get(client, listener)
    out, err = first.communicate(timeout=60)
    assert out.strip() == str(got.root), err
    assert "waiting" in listener.said[0]
    assert len(hub.seen(NAME, host="storage")) == 1
    assert listener.position == listener.total


def test_the_lock_is_the_one_that_huggingface_hub_takes(hub: HubServer, client: HubClient, child: Child) -> None:
    hub.add("org/model", FILES)
    lock = client.cache_dir / ".locks" / "models--org--model" / f"{WEIGHTS_SHA}.lock"
    lock.parent.mkdir(parents=True)
    held = FileLock(lock)
    held.acquire()
    listener = Listener()

    def release(text: str) -> None:
        listener.said.append(text)
        held.release()

    listener.say = release  # type: ignore[method-assign]
    get(client, listener)
    assert len(listener.said) == 1


def test_too_little_room_is_seen_before_the_first_byte(
    hub: HubServer, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES)
    free = len(WEIGHTS) + 1000  # enough for the bytes, not for the margin
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(errors.DiskFullError, match=r"needs 2\.9 MiB more, 2\.9 MiB are free") as caught:
        get(client)
    assert caught.value.hint
    assert hub.seen(NAME) == []
    leave_part(client, WEIGHTS[:1_000_000])  # what is here already needs no room
    get(client)


def test_a_disk_that_fills_up_keeps_what_arrived(hub: HubServer, client: HubClient) -> None:
    """The system itself refuses to write on: a limit on file size behaves like a full disk (EFBIG for ENOSPC)."""
    repo = hub.add("org/model", FILES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_001, hard))
    try:
        with pytest.raises(errors.DiskFullError, match="no room for the rest of org/model"):
            get(client)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert part_path(client).read_bytes() == WEIGHTS[:1_500_001]
    assert_nothing_looks_complete(client, repo.commit)
    assert (get(client).root / NAME).read_bytes() == WEIGHTS
    assert hub.seen(NAME, host="storage")[-1].range == "bytes=1500001-"


@pytest.mark.parametrize("hard_links_too", [False, True])
def test_where_symlinks_do_not_work(
    hub: HubServer, client: HubClient, monkeypatch: pytest.MonkeyPatch, hard_links_too: bool
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("not on this file system")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    if hard_links_too:
        monkeypatch.setattr(os, "link", refuse)
    hub.add("org/model", FILES)
    got = get(client)
    assert (got.root / NAME).read_bytes() == WEIGHTS
    assert not (got.root / NAME).is_symlink()
    hub.forget()
    assert get(client) == got
    assert not [seen for seen in hub.log if "/resolve/" in seen.path]
    found = huggingface_hub.snapshot_download("org/model", cache_dir=client.cache_dir, local_files_only=True)
    assert Path(found) == got.root


def test_offline_uses_what_is_there_and_asks_nobody(hub: HubServer, client: HubClient) -> None:
    hub.add("org/model", FILES)
    got = get(client)
    hub.forget()
    with HubClient(endpoint=hub.url, cache_dir=client.cache_dir, offline=True) as offline:
        again = get(offline)
        assert (again.root, set(again.files)) == (got.root, set(got.files))
        with pytest.raises(errors.OfflineError):
            offline.snapshot("org/other")
        (got.root / NAME).resolve().unlink()
        gone = RepoSnapshot("org/model", "main", got.root.name, False, client.snapshot("org/model").files)
        hub.forget()
        with pytest.raises(errors.OfflineError, match=NAME):
            download(offline, gone, gone.files)
    assert hub.log == []


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", ""])
def test_a_file_name_cannot_leave_the_cache(path: str, client: HubClient) -> None:
    evil = RepoSnapshot("org/model", "main", "0" * 40, False, (RemoteFile(path, 1, None, "1" * 40),))
    with pytest.raises(errors.HubError, match="unsafe"):
        download(client, evil, evil.files)


def test_a_branch_is_remembered_with_its_commit(hub: HubServer, client: HubClient) -> None:
    repo = hub.add("org/model", FILES)
    repo.refs["refs/pr/7"] = repo.commit
    snapshot = client.snapshot("org/model", "refs/pr/7")
    download(client, snapshot, snapshot.files)
    store = RepoCache(client.cache_dir, "org/model")
    assert store.commit("refs/pr/7") == store.commit(repo.commit) == repo.commit
    assert store.commit("main") is None
