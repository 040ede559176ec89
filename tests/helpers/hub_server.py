"""A small hub on the loopback that serves files in memory to `huggingface_hub`, with injected faults.

    with serving() as hub:
        commit = hub.add("models", "org/name", {"config.json": b"{}"})
        hub.fail("GET .*config", status=503, times=1)

Large files (`LFS_SIZE` bytes and more) are redirected to another host, as the public hub does; `hub.requests` lists the
requests as "METHOD path".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SIZE = 10_000  # bytes
XET = ""  # the xet hash of large files; the server does not speak xet


@dataclass
class Fault:
    """A fault of requests that match `pattern`, at most `times` times (0: always)."""

    pattern: str
    status: int = 0  # the answer's status
    code: str = ""  # the hub's name for the error
    body: bytes | None = None  # answered instead, with status 200
    delay_s: float = 0.0  # before the answer
    flip: int = -1  # the byte of the content that is changed
    keep: int = -1  # bytes that are sent; Content-Length promises all of them
    shorten: int = -1  # bytes that are sent and promised
    times: int = 0


@dataclass
class Repository:
    """Commits of a repository, each a mapping from path to content."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gate: int = 0  # 401: a token is needed; 403: no token is enough
    renamed: str = ""  # the name that requests are redirected to


@dataclass
class Hub:
    """The state of a server."""

    address: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)  # other paths
    large: dict[str, bytes] = field(default_factory=dict)  # by sha256, once they were redirected to
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)  # paths that a token was shown to
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, name: str, files: dict[str, bytes], commit: str | None = None, ref: str = "main") -> str:
        """Add a commit to a repository, "models" or "datasets", and point a branch at it; returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository())
        commit = commit or hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository.commits[commit] = files
        repository.refs[ref] = commit
        return commit

    def fail(self, pattern: str, **options: Any) -> None:
        """Let requests fail; see `Fault`."""
        self.faults.append(Fault(pattern, **options))

    def fault(self, request: str) -> Fault:
        """The fault of a request, or one without effect."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if re.search(fault.pattern, request) and fault.times >= 0:
                    fault.times = {0: 0, 1: -1}.get(fault.times, fault.times - 1)
                    return fault
        return Fault("")


class AnswerError(Exception):
    """A status other than 200, with headers."""

    def __init__(self, status: int, code: str = "", **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers |= {"X-Error-Code": code, "X-Error-Message": code} if code else {}


def oid(content: bytes) -> str:
    """The git blob id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file's entry in the listing of a repository."""
    size = len(content)
    lfs: dict[str, Any] = {"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}}
    lfs |= {"xetHash": XET} if XET else {}
    return {"type": "file", "path": path, "size": size, "oid": oid(content)} | (lfs if size >= LFS_SIZE else {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization"):
            self.hub.shown.add(path)
        fault = self.hub.fault(f"{self.command} {path}")
        time.sleep(fault.delay_s)
        headers: dict[str, str] = {}
        try:
            if fault.status:
                raise AnswerError(fault.status, fault.code)
            status, (content, headers) = 200, self.content(path)
        except AnswerError as error:
            status, content, headers = error.status, b"{}", error.headers
        if fault.body is not None:
            content, headers = fault.body, {}
        with contextlib.suppress(OSError):
            self.send(status, content, headers, fault)

    do_HEAD = do_GET  # noqa: N815 - the names are the base class's

    def content(self, path: str) -> tuple[bytes, dict[str, str]]:
        """Content and headers of a path. Raises AnswerError if it does not exist or is not allowed."""
        if path in self.hub.raw:
            return self.hub.raw[path], {}
        if path.startswith("/cdn/"):
            return self.hub.large[path.removeprefix("/cdn/")], {}
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            kind, name, verb, revision = match.groups()
            commit, files = self.commit(kind, name, revision or "main")
            if verb == "tree":
                return json.dumps([entry(*item) for item in files.items()]).encode(), {}
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            return json.dumps({"id": name, "sha": commit, "siblings": siblings, "tags": []}).encode(), {}
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit, files = self.commit("datasets" if match[1] else "models", match[2], match[3])
            if match[4] not in files:
                raise AnswerError(404, "EntryNotFound")
            return self.file(commit, match[4], files[match[4]])
        raise AnswerError(404)

    def file(self, commit: str, path: str, content: bytes) -> tuple[bytes, dict[str, str]]:
        listed = entry(path, content)
        if "lfs" not in listed:
            return content, {"X-Repo-Commit": commit, "ETag": f'"{listed["oid"]}"'}
        sha256 = listed["lfs"]["oid"]
        self.hub.large[sha256] = content
        raise AnswerError(
            302,
            X_Repo_Commit=commit,
            X_Linked_Etag=f'"{sha256}"',
            X_Linked_Size=str(len(content)),
            Location=f"{self.hub.address.replace('127.0.0.1', 'localhost')}/cdn/{sha256}",
        )

    def commit(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.hub.repositories.get((kind, name))
        token = self.headers.get("Authorization")
        if repository is None:
            raise AnswerError(404 if token else 401, "RepoNotFound")
        if repository.renamed:
            raise AnswerError(307, Location=self.path.replace(name, repository.renamed))
        if repository.gate == 403 or (repository.gate and not token):
            raise AnswerError(403 if token else 401, "GatedRepo")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            raise AnswerError(404, "RevisionNotFound")
        return commit, repository.commits[commit]

    def send(self, status: int, content: bytes, headers: dict[str, str], fault: Fault) -> None:
        if 0 <= fault.flip < len(content):
            content = content[: fault.flip] + bytes([content[fault.flip] ^ 1]) + content[fault.flip + 1 :]
        content = content[: fault.shorten] if fault.shorten >= 0 else content
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "") if status == 200 else ""):
            first, last = int(part[1]), int(part[2] or len(content) - 1)
            headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: fault.keep] if fault.keep >= 0 else content)
            self.close_connection |= fault.keep >= 0

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A context in which the hub runs."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub})) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
