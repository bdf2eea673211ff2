"""A small hub on this machine: what huggingface_hub asks of the real one to download a model, with its answers."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".gguf", ".onnx", ".pth")
"""Files that the hub keeps apart: asked for one, it names another address."""


@dataclass
class Repository:
    """A model of the hub: its files at one commit, by path."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main", "v1")
    gated: bool = False

    @classmethod
    def of(cls, folder: Path) -> Repository:
        """With the files of a folder."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


@dataclass
class Hub:
    """The running hub."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Method and path of every request, and the part that it asks for: `GET /large/tiny/llama/model.safetensors`."""
    cuts: dict[str, int] = field(default_factory=dict)
    """Large files by name whose sending ends after this many bytes, once: an entry is removed when it was used."""
    stalled: set[str] = field(default_factory=set)
    """Large files by name of which half is sent, and the rest never."""
    broken: bool = False
    """Whether every request fails."""
    port: int = 0

    def environment(self, cache: Path) -> dict[str, str]:
        """For programs that use this hub, and a cache of their own."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        address = {"HF_ENDPOINT": f"http://127.0.0.1:{self.port}", "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
        return kept | address | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""}

    def fetched(self) -> list[str]:
        """The large files whose content was asked for, sorted, with the part."""
        return sorted(request.rpartition("/")[2] for request in self.requests if request.startswith("GET /large/"))


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", hub.port), Handler) as server:
        hub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(" ".join([self.command, path, self.headers.get("Range", "")]).strip())
        parts = path.strip("/").split("/")
        if self.hub.broken:
            return self.answer(503, b"maintenance")
        kind, name, rest = ("resolve", "/".join(parts[:2]), parts[3:]) if parts[2] == "resolve" else ("large", "", [])
        if parts[0] == "large":
            name, rest = "/".join(parts[1:3]), parts[3:]
        elif parts[:2] == ["api", "models"]:
            kind, name, rest = parts[4], "/".join(parts[2:4]), parts[5:]
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        if kind != "large" and rest[0] not in (COMMIT, *repository.revisions):
            return self.refuse(404, "RevisionNotFound")
        if repository.gated and kind in ("resolve", "large"):
            return self.refuse(403, "GatedRepo")
        return getattr(self, kind)(name, repository, rest)

    def revision(self, name: str, repository: Repository, rest: list[str]) -> None:
        self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())

    def tree(self, name: str, repository: Repository, rest: list[str]) -> None:
        files = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in repository.files.items()
        ]
        self.answer(200, json.dumps(files).encode())

    def resolve(self, name: str, repository: Repository, rest: list[str]) -> None:
        path = "/".join(rest[1:])
        if path not in repository.files:
            return self.refuse(404, "EntryNotFound")
        content = repository.files[path]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if not path.endswith(LARGE):
            return self.answer(200, content, headers)
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self.answer(302, b"", headers | {"Location": f"http://localhost:{self.hub.port}/large/{name}/{path}"})

    def large(self, name: str, repository: Repository, rest: list[str]) -> None:
        content = repository.files["/".join(rest)]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        extent = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        cut = len(content) // 2 if rest[-1] in self.hub.stalled else self.hub.cuts.pop(rest[-1], None)
        self.answer(206 if start else 200, content[start:], extent, cut)
        if rest[-1] in self.hub.stalled:
            self.wfile.flush()
            self.connection.recv(1)  # until the client ends

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
