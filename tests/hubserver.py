"""A real HTTP server that speaks the Hugging Face Hub's routes, and can fail in all the ways a Hub can.

Two hosts, as in life: the Hub answers metadata and small files and sends large ones (302) to a storage host of another
name and port, which must never see the token. Nothing here waits for a clock: a transfer can be held at a byte
(`hold`) until the test lets it go.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 4
"""Entries on one page of a tree listing: small, so that paging is always exercised."""

REFUSAL = b"no"
"""The body of an answer whose status a test chose."""


def git_oid(content: bytes) -> str:
    """What git calls this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """A repository: `lfs` names the files that lie on the storage host."""

    files: dict[str, bytes]
    lfs: frozenset[str]
    gated: bool = False
    commit: str = ""
    refs: dict[str, str] = field(default_factory=dict)
    digests: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def sha256(self, path: str) -> str:
        """Of a file, worked out once for each content: as with the true Hub, an answer does not wait for it."""
        content = self.files[path]
        known = self.digests.get(path)
        if known is None or known[0] is not content:
            known = self.digests[path] = (content, hashlib.sha256(content).hexdigest())
        return known[1]


@dataclass(frozen=True)
class Seen:
    """One request, and what was sent for it."""

    host: str
    method: str
    path: str
    range: str | None
    token: str | None
    status: int
    sent_bytes: int


@dataclass
class Fault:
    """What goes wrong with a path that ends in `suffix`, the next `times` times."""

    suffix: str
    host: str
    times: int
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    body: bytes | None = None
    ignore_range: bool = False


class Hold:
    """A transfer that stops at a byte until it is let go."""

    def __init__(self, suffix: str, at_bytes: int) -> None:
        self.suffix = suffix
        self.at_bytes = at_bytes
        self.reached = threading.Event()
        self.go = threading.Event()


class HubServer:
    """`with HubServer() as hub:` serves until the end of the block; `hub.url` is the endpoint."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.repos: dict[str, Repo] = {}
        self._log: list[Seen] = []
        self._open = 0
        self.faults: list[Fault] = []
        self.holds: list[Hold] = []
        self._lock = threading.Condition()
        self._hub = _Server(self, "hub")
        self._storage = _Server(self, "storage")
        self.url = f"http://127.0.0.1:{self._hub.server_port}"
        self.storage_url = f"http://localhost:{self._storage.server_port}"

    def __enter__(self) -> HubServer:
        for server in (self._hub, self._storage):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hold in self.holds:
            hold.go.set()
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def add(self, name: str, files: Mapping[str, bytes], *, lfs: tuple[str, ...] = (), gated: bool = False) -> Repo:
        """A repository; by default `.safetensors` and `.gguf` are large files."""
        large = frozenset(lfs) | {path for path in files if path.endswith((".safetensors", ".gguf"))}
        names = "".join(f"{path} {git_oid(content)}\n" for path, content in sorted(files.items()))
        repo = Repo(dict(files), large, gated, hashlib.sha1(names.encode()).hexdigest())
        repo.refs["main"] = repo.commit
        self.repos[name] = repo
        return repo

    def fail(
        self,
        suffix: str,
        *,
        host: str = "hub",
        times: int = 1_000_000,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        cut_after: int | None = None,
        body: bytes | None = None,
        ignore_range: bool = False,
    ) -> None:
        """Let requests for paths that end in `suffix` fail."""
        self.faults.append(Fault(suffix, host, times, status, headers or {}, cut_after, body, ignore_range))

    def hold(self, suffix: str, at_bytes: int) -> Hold:
        """Stop the next transfer of a file at that byte."""
        hold = Hold(suffix, at_bytes)
        self.holds.append(hold)
        return hold

    @property
    def log(self) -> list[Seen]:
        """All requests, each with the bytes that were sent for it: waits for those that are still being answered."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._open == 0, timeout=30), "a request is still being answered"
            return list(self._log)

    def seen(self, suffix: str, *, host: str | None = None, method: str = "GET") -> list[Seen]:
        """The requests for paths that end in `suffix`."""
        return [s for s in self.log if s.path.endswith(suffix) and s.method == method and host in (None, s.host)]

    def forget(self) -> None:
        """Begin a new log."""
        assert self.log is not None
        self._log.clear()

    def begun(self) -> None:
        """A request has come in."""
        with self._lock:
            self._open += 1

    def note(self, seen: Seen) -> None:
        """It has been answered."""
        with self._lock:
            self._log.append(seen)
            self._open -= 1
            self._lock.notify_all()

    def fault(self, host: str, path: str) -> Fault | None:
        """The fault for this request, if any is left."""
        with self._lock:
            for fault in self.faults:
                if fault.host == host and path.endswith(fault.suffix) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def take_hold(self, path: str) -> Hold | None:
        """The hold for this transfer; it holds once."""
        with self._lock:
            for hold in self.holds:
                if path.endswith(hold.suffix) and not hold.reached.is_set():
                    return hold
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer, name: str) -> None:
        self.hub = hub
        self.name = name
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._answer(body_wanted=False)

    def do_GET(self) -> None:
        self._answer(body_wanted=True)

    def _answer(self, *, body_wanted: bool) -> None:
        self._body_wanted = body_wanted
        self._sent = 0
        self._status = 0
        self.server.hub.begun()
        parts = urlsplit(self.path)
        self._path, query = unquote(parts.path), parse_qs(parts.query)
        try:
            self._route(query)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.server.hub.note(
                Seen(
                    self.server.name,
                    self.command,
                    self._path,
                    self.headers.get("Range"),
                    self.headers.get("Authorization"),
                    self._status,
                    self._sent,
                )
            )

    def _route(self, query: dict[str, list[str]]) -> None:
        hub, path = self.server.hub, self._path
        fault = hub.fault(self.server.name, path)
        if fault and fault.status:
            self._send(fault.status, dict(fault.headers), REFUSAL)
        elif self.server.name == "storage":
            _, _, name, rest = path.split("/", 3)
            repo = hub.repos[name.replace("--", "/")]
            content = repo.files[rest]
            self._file(content, {"ETag": '"multipart-of-the-storage"'}, fault)
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), query)
        else:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._resolve(name, revision, file, fault)

    def _api(self, rest: str, query: dict[str, list[str]]) -> None:
        kind = "/revision/" if "/revision/" in rest else "/tree/"
        name, _, revision = rest.partition(kind)
        repo = self._repo(name, revision)
        if repo is None:
            return
        if kind == "/revision/":
            siblings = [{"rfilename": path} for path in repo.files]
            gated = "manual" if repo.gated else False
            about = {"id": name, "sha": repo.commit, "siblings": siblings, "private": False, "gated": gated}
            self._json(about)
            return
        entries = [_entry(repo, path) for path in sorted(repo.files)] + [{"type": "directory", "path": "x", "oid": ""}]
        start = int(query.get("cursor", ["0"])[0])
        more = {}
        if start + PAGE < len(entries):
            link = f"{self.server.hub.url}/api/models/{name}/tree/{revision}?recursive=true&cursor={start + PAGE}"
            more = {"Link": f'<{link}>; rel="next"'}
        self._json(entries[start : start + PAGE], more)

    def _resolve(self, name: str, revision: str, file: str, fault: Fault | None) -> None:
        hub = self.server.hub
        repo = self._repo(name, revision)
        if repo is None:
            return
        if repo.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted.")
            return
        if file not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = repo.files[file]
        if file not in repo.lfs:
            self._file(content, {"ETag": f'"{git_oid(content)}"', "X-Repo-Commit": repo.commit}, fault)
            return
        headers = {
            "Location": f"{hub.storage_url}/blob/{name.replace('/', '--')}/{file}",
            "X-Repo-Commit": repo.commit,
            "X-Linked-Etag": f'"{repo.sha256(file)}"',
            "X-Linked-Size": str(len(content)),
        }
        self._send(302, headers, b"")

    def _repo(self, name: str, revision: str) -> Repo | None:
        hub = self.server.hub
        authorization = self.headers.get("Authorization")
        if hub.token and authorization and authorization != f"Bearer {hub.token}":
            self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"")
            return None
        repo = hub.repos.get(name)
        if repo is None:
            if authorization:
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:
                self._send(401, {"X-Error-Message": "Invalid username or password."}, b"")
            return None
        if revision != repo.commit and revision not in repo.refs:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": message}, b"")

    def _json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self._send(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())

    def _file(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        asked = self.headers.get("Range")
        if fault and fault.body is not None:
            content = fault.body
        headers = {**headers, "Accept-Ranges": "bytes"}
        if asked is None or (fault and fault.ignore_range):
            self._send(200, headers, content, fault)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(content)) if last else len(content)
        if start >= len(content):
            self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(206, headers, content[start:stop], fault)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, fault: Fault | None = None) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not self._body_wanted:
            return
        if fault and fault.cut_after is not None:
            self._write(body[: fault.cut_after])
            self.close_connection = True
            return
        hold = self.server.hub.take_hold(self._path) if status in (200, 206) else None
        if hold:
            self._write(body[: hold.at_bytes])
            hold.reached.set()
            hold.go.wait()
            body = body[hold.at_bytes :]
        self._write(body)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 16):
            piece = data[start : start + (1 << 16)]
            self.wfile.write(piece)
            self._sent += len(piece)
        self.wfile.flush()


def _entry(repo: Repo, path: str) -> dict[str, Any]:
    content = repo.files[path]
    entry = {"type": "file", "path": path, "size": len(content)}
    if path not in repo.lfs:
        return {**entry, "oid": git_oid(content)}
    sha256 = repo.sha256(path)
    lfs = {"oid": sha256, "size": len(content), "pointerSize": 133}
    return {**entry, "oid": git_oid(sha256.encode()), "lfs": lfs}
