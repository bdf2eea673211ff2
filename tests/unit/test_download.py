"""Downloads, against a server in this process that misbehaves as it is told."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from langneurons import errors
from langneurons.download import DownloadError, download

CONTENT = bytes(range(256)) * 1000
"""256,000 bytes: several network reads, and no two neighbouring places alike."""

OTHER = bytes(reversed(CONTENT))
CUT = 100_000
SCRIPT = Path(errors.__file__).parents[1] / "scripts" / "download_published.py"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- the server ------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """One answer of the script per request; the last one repeats."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(self.headers)
            self.server.sent.append(0)
            answer = self.server.answers[min(number, len(self.server.answers) - 1)]
        self.close_connection = True
        answer(self)

    def answer(self, status: int, headers: dict[str, Any], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in {"Date": formatdate(usegmt=True), "Connection": "close", **headers}.items():
            self.send_header(name, str(value))
        self.server.sent[-1] = len(body)  # first: the client may be done before the next line
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay quiet."""


Answer = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.answers: list[Answer] = []
        self.requests: list[Any] = []
        self.sent: list[int] = []
        self.released = threading.Event()
        """Set at the end, for answers that wait."""

    def url(self, path: str = "/file.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def asked(self, name: str = "Range") -> list[str | None]:
        """A header of all requests."""
        return [headers.get(name) for headers in self.requests]


def serve(
    content: bytes = CONTENT,
    tag: str | None = '"one"',
    cut: int | None = None,
    ranges: bool = True,
    length: bool = True,
    **headers: Any,
) -> Answer:
    """An answer as a good server gives it, or one that ends after `cut` bytes of the body."""

    def answer(handler: Handler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if tag:
            named["ETag"] = tag
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        status, start = 200, 0
        if ranges and asked and condition in (None, tag, named.get("Last-Modified")):
            status, start = 206, int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            named.setdefault("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if length:
            named["Content-Length"] = len(content) - start
        handler.answer(status, named, content[start:][:cut])

    return answer


def refuse(status: int, **headers: str) -> Answer:
    return lambda handler: handler.answer(status, {"Content-Length": 4, **headers}, b"no!\n")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.released.set()
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _without_waits_and_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langneurons.download.WAITS", (0, 0, 0))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "published" / "file.bin"


def names(path: Path) -> list[str]:
    """What lies in the target's folder."""
    return sorted(entry.name for entry in path.parent.iterdir()) if path.parent.exists() else []


def part_of(path: Path, url: str) -> Path:
    return path.with_name(f".{path.name}.{digest(url.encode())[:12]}.part")


def failure(url: str, path: Path, sha256: str | None = None) -> str:
    """The message of a download that fails, and that writes no target."""
    with pytest.raises(DownloadError) as caught:
        download(url, path, sha256)
    assert not path.exists()
    return str(caught.value)


# -- downloads that need no second attempt ---------------------------------------------------------------------------


def test_a_plain_download(server: Server, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()
    assert (server.asked(), server.sent) == ([None], [len(CONTENT)])
    assert server.asked("Accept-Encoding") == ["identity"]
    assert capsys.readouterr() == ("", "")  # no terminal: a bar only if it takes long


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_empty_file(server: Server, path: Path) -> None:
    server.answers = [serve(b"")]
    download(server.url(), path, digest(b""))
    assert path.read_bytes() == b""


def test_an_existing_file_is_replaced(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"old")
    server.answers = [refuse(404), serve()]
    with pytest.raises(DownloadError):
        download(server.url(), path)
    assert path.read_bytes() == b"old"
    download(server.url(), path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("write", [str.lower, str.upper])
def test_the_right_checksum(server: Server, path: Path, write: Callable[[str], str]) -> None:
    server.answers = [serve()]
    download(server.url(), path, write(digest(CONTENT)))
    assert path.read_bytes() == CONTENT


def test_a_file_that_has_the_checksum_is_kept(server: Server, path: Path) -> None:
    server.answers = [serve()]
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    download(server.url(), path, digest(CONTENT))
    assert server.requests == []
    download(server.url(), path)  # without a checksum it may be an old version
    assert len(server.requests) == 1


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: Server, path: Path) -> None:
    server.answers = [serve(OTHER), serve()]
    assert failure(server.url(), path, digest(CONTENT).upper()) == (
        f"{server.url()}: the file has the sha256 {digest(OTHER)}, but {digest(CONTENT)} is expected. Either the "
        "sha256 in the config is wrong: correct it; or the file at the server has changed: find the right address. "
        "What has come is deleted; the next run starts from the beginning."
    )
    assert names(path) == []
    download(server.url(), path, digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, None]


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_a_malformed_checksum_is_refused_before_the_download(server: Server, path: Path, sha256: str) -> None:
    message = failure(server.url(), path, sha256)
    assert message.startswith(f"{server.url()}: {sha256!r} is no sha256 checksum, which has 64 hexadecimal digits.")
    assert server.requests == []


def test_redirects_are_followed(server: Server, path: Path) -> None:
    server.answers = [refuse(302, Location="/elsewhere"), refuse(307, Location=server.url("/again")), serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT


def test_endless_redirects(server: Server, path: Path) -> None:
    server.answers = [refuse(302, Location="/file.bin")]
    message = failure(server.url(), path)
    assert message.startswith(f"{server.url()}: its redirects lead nowhere (Exceeded maximum allowed redirects.)")
    assert len(server.requests) == 21  # httpx's limit of 20, and no further attempts


def test_a_redirect_to_another_scheme(server: Server, path: Path) -> None:
    server.answers = [refuse(302, Location="ftp://127.0.0.1/file.bin")]
    assert failure(server.url(), path).startswith(f"{server.url()}: its redirects lead nowhere (")
    assert len(server.requests) == 1


def test_without_a_content_length(server: Server, path: Path) -> None:
    server.answers = [serve(length=False)]
    download(server.url(), path, digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]


# -- servers that compress although they were asked not to -----------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_compression_is_undone(server: Server, path: Path, encoding: str) -> None:
    packed = gzip.compress(CONTENT[:CUT]) + gzip.compress(CONTENT[CUT:])  # gzip allows several members
    server.answers = [serve(packed, cut=500, Content_Encoding=encoding), serve(packed)]
    download(server.url(), path, digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]
    assert server.asked() == [None, "bytes=500-"]  # the compressed file was continued


@pytest.mark.parametrize(("address", "target"), [("/file.gz", "file.bin"), ("/content", "file.gz")])
def test_a_gz_file_stays_one(server: Server, path: Path, address: str, target: str) -> None:
    """Some servers call the compression of the file itself an encoding; its checksum is that of the .gz file."""
    packed = gzip.compress(CONTENT)
    server.answers = [serve(packed, Content_Encoding="x-gzip")]
    download(server.url(address), path.with_name(target), digest(packed))
    assert path.with_name(target).read_bytes() == packed


@pytest.mark.parametrize("packed", [gzip.compress(CONTENT)[:-9], b"no gzip", b"\x1f\x8b\x08" + bytes(50)])
def test_damaged_compression(server: Server, path: Path, packed: bytes) -> None:
    server.answers = [serve(packed, Content_Encoding="gzip")]
    assert failure(server.url(), path).startswith(f"{server.url()}: the server's compression is damaged (")
    assert names(path) == []


def test_another_encoding(server: Server, path: Path) -> None:
    server.answers = [serve(Content_Encoding="br")]
    assert failure(server.url(), path).startswith(f"{server.url()}: the server sends the file in the encoding 'br'")
    assert names(path) == []


# -- interruptions ---------------------------------------------------------------------------------------------------


def test_a_cut_download_continues(server: Server, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [serve(cut=CUT), serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]
    assert server.asked() == [None, f"bytes={CUT}-"]
    assert server.asked("If-Range") == [None, '"one"']
    assert server.sent == [CUT, len(CONTENT) - CUT]  # no byte twice
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{server.url()}: the connection ended after {CUT} of {len(CONTENT)} bytes (")
    assert lines[0].endswith("; trying again in 0 s")


def test_several_cuts(server: Server, path: Path) -> None:
    server.answers = [serve(cut=70_000)]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-"]
    assert sum(server.sent) == len(CONTENT)


def test_cut_every_time_then_continued_by_a_later_run(server: Server, path: Path) -> None:
    server.answers = [serve(cut=1000)]
    message = failure(server.url(), path)
    part = part_of(path, server.url())
    assert re.fullmatch(
        re.escape(f"{server.url()}: the connection ended after 4000 of {len(CONTENT)} bytes (")
        + r"[^()]+\(?.*\)\. "
        + re.escape(
            f"What has come (4000 bytes) is kept in {part}, and running again continues. Check the network; "
            "alternatively download the file by hand and name its path in the config."
        ),
        message,
    )
    assert len(server.requests) == 4  # the first, and one for each of the WAITS
    assert part.read_bytes() == CONTENT[:4000]
    assert names(path) == sorted([part.name, part.with_suffix(".json").name])
    server.answers = [serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]
    assert server.asked()[-1] == "bytes=4000-"
    assert sum(server.sent) == len(CONTENT)


def test_a_connection_that_stalls_continues(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langneurons.download.READ_TIMEOUT", 0.5)

    def stall(handler: Handler) -> None:
        serve(cut=CUT)(handler)
        handler.wfile.flush()
        handler.server.released.wait(60)

    server.answers = [stall, serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-"]


def test_a_network_that_goes_away_keeps_the_part(server: Server, path: Path) -> None:
    """The last failure has no bytes, but those of the first are named."""
    server.answers = [serve(cut=CUT), lambda handler: None]
    message = failure(server.url(), path)
    assert message.startswith(f"{server.url()}: no answer from the server (Server disconnected without sending a res")
    assert f"What has come ({CUT} bytes) is kept in {part_of(path, server.url())}, and running again" in message


def test_another_address_does_not_continue_the_part(server: Server, path: Path) -> None:
    server.answers = [serve(cut=1000)]
    failure(server.url(), path)
    server.answers = [serve(OTHER)]
    download(server.url("/other.bin"), path)
    assert path.read_bytes() == OTHER
    assert server.asked()[-1] is None


def test_a_server_that_ignores_ranges(server: Server, path: Path) -> None:
    server.answers = [serve(cut=CUT), serve(ranges=False)]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-"]


def test_a_server_that_ignores_ranges_and_cuts_every_time(server: Server, path: Path) -> None:
    server.answers = [serve(ranges=False, cut=CUT)]
    assert f"ended after {CUT} of {len(CONTENT)} bytes" in failure(server.url(), path)
    assert part_of(path, server.url()).read_bytes() == CONTENT[:CUT]


def test_a_range_that_cannot_be_satisfied_starts_again(server: Server, path: Path) -> None:
    server.answers = [serve(cut=CUT), refuse(416, Content_Range=f"bytes */{len(CONTENT)}"), serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-", None]


def test_a_range_refused_without_one_is_an_error(server: Server, path: Path) -> None:
    server.answers = [serve(cut=CUT), refuse(416)]
    assert failure(server.url(), path).startswith(
        f"{server.url()}: the server answers 416 Requested Range Not Satisfiable. Check the address; alternatively"
    )
    assert server.asked() == [None, f"bytes={CUT}-", None]


@pytest.mark.parametrize(
    "place",
    [f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", f"bytes {CUT}-{len(CONTENT) - 1}/{len(CONTENT) + 1}", "nonsense"],
)
def test_another_range_than_asked_for_starts_again(server: Server, path: Path, place: str) -> None:
    server.answers = [serve(cut=CUT), serve(Content_Range=place), serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-", None]


def test_a_shorter_range_than_asked_for_goes_on(server: Server, path: Path) -> None:
    def some(handler: Handler) -> None:
        end = CUT + 1000
        place = f"bytes {CUT}-{end - 1}/{len(CONTENT)}"
        handler.answer(206, {"Content-Range": place, "Content-Length": 1000, "ETag": '"one"'}, CONTENT[CUT:end])

    server.answers = [serve(cut=CUT), some, serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-", f"bytes={CUT + 1000}-"]


def test_more_bytes_than_the_file_has_start_again(server: Server, path: Path) -> None:
    def more(handler: Handler) -> None:
        place = f"bytes {CUT}-{len(CONTENT) - 1}/{len(CONTENT)}"
        handler.answer(206, {"Content-Range": place, "ETag": '"one"'}, CONTENT[CUT:] + b"more")

    server.answers = [serve(cut=CUT), more, serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-", None]


def test_without_a_content_length_the_rest_tells_the_length(server: Server, path: Path) -> None:
    def chunked(handler: Handler) -> None:
        body = b"%x\r\n%s\r\n" % (CUT, CONTENT[:CUT])  # the last chunk, of length 0, is missing
        lengths = {"Transfer-Encoding": "chunked", "Content-Length": 5}  # RFC 9112, 6.3: the latter does not count
        handler.answer(200, {**lengths, "ETag": '"one"'}, body)

    def some(handler: Handler) -> None:
        place = f"bytes {CUT}-{CUT + 999}/{len(CONTENT)}"
        handler.answer(206, {"Content-Range": place, "ETag": '"one"'}, CONTENT[CUT : CUT + 1000])

    server.answers = [chunked, some, serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-", f"bytes={CUT + 1000}-"]


# -- never a mixture of two versions ---------------------------------------------------------------------------------


def test_a_changed_file_starts_again(server: Server, path: Path) -> None:
    server.answers = [serve(cut=CUT), serve(OTHER, tag='"two"')]
    download(server.url(), path)
    assert path.read_bytes() == OTHER
    assert server.asked("If-Range") == [None, '"one"']
    assert server.sent == [CUT, len(OTHER)]


def test_a_changed_file_of_a_server_that_ignores_if_range(server: Server, path: Path) -> None:
    def rest(handler: Handler) -> None:
        place = f"bytes {CUT}-{len(OTHER) - 1}/{len(OTHER)}"
        handler.answer(206, {"Content-Range": place, "ETag": '"two"'}, OTHER[CUT:])

    server.answers = [serve(cut=CUT), rest, serve(OTHER, tag='"two"')]
    download(server.url(), path)
    assert path.read_bytes() == OTHER
    assert server.asked() == [None, f"bytes={CUT}-", None]


def test_a_changed_file_between_two_runs(server: Server, path: Path) -> None:
    server.answers = [serve(cut=1000)]
    failure(server.url(), path)
    server.answers = [serve(OTHER, tag='"two"')]
    download(server.url(), path)
    assert path.read_bytes() == OTHER
    assert (server.asked()[-1], server.asked("If-Range")[-1]) == ("bytes=4000-", '"one"')


def test_a_date_is_a_version_as_well(server: Server, path: Path) -> None:
    date = "Wed, 01 Jan 2025 00:00:00 GMT"
    server.answers = [serve(tag=None, cut=CUT, Last_Modified=date), serve(tag=None, Last_Modified=date)]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-"]
    assert server.asked("If-Range") == [None, date]


UNNAMED = [
    {"tag": None},
    {"tag": 'W/"one"'},
    {"tag": 'W/"one"', "Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT"},  # RFC 9110, 13.1.5: no date beside a tag
    {"tag": None, "Date": "Wed, 01 Jan 2025 00:00:00 GMT", "Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT"},
    {"tag": None, "Last_Modified": "yesterday"},
]


@pytest.mark.parametrize("version", UNNAMED, ids=str)
def test_an_unnamed_version_is_not_continued(server: Server, path: Path, version: dict[str, Any]) -> None:
    server.answers = [serve(cut=CUT, **version), serve(OTHER, **version)]
    download(server.url(), path)
    assert path.read_bytes() == OTHER
    assert server.asked() == [None, None]


@pytest.mark.parametrize("version", UNNAMED, ids=str)
def test_an_unnamed_version_is_continued_if_a_checksum_follows(
    server: Server, path: Path, version: dict[str, Any]
) -> None:
    server.answers = [serve(cut=CUT, **version), serve(**version)]
    download(server.url(), path, digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked() == [None, f"bytes={CUT}-"]
    assert server.asked("If-Range") == [None, None]


def test_an_unnamed_version_cut_every_time(server: Server, path: Path) -> None:
    server.answers = [serve(tag=None, cut=CUT)]
    assert "Running again starts anew: the server does not name the file's version, and there is no sha256." in failure(
        server.url(), path
    )


@pytest.mark.parametrize("note", [None, "", "{}", "[]", '{"validator": "\\"one\\"", "tot'])
def test_a_part_without_a_readable_note_is_not_continued(server: Server, path: Path, note: str | None) -> None:
    server.answers = [serve(cut=1000)]
    failure(server.url(), path)
    beside = part_of(path, server.url()).with_suffix(".json")
    beside.unlink() if note is None else beside.write_text(note)
    server.answers = [serve()]
    download(server.url(), path, digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked()[-1] is None


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "400 Bad Request. Check the address"),
        (401, "401 Unauthorized. Access may need a login or the consent to a licence: check the address in a browser"),
        (403, "403 Forbidden. Access may need a login or the consent to a licence: check the address in a browser"),
        (404, "404 Not Found. The file is not there (any more): check the address"),
        (410, "410 Gone. The file is not there (any more): check the address"),
        (204, "204 No Content. Check the address"),
    ],
)
def test_a_refusal_is_final(server: Server, path: Path, status: int, expected: str) -> None:
    server.answers = [lambda handler: handler.answer(status, {})]
    assert failure(server.url(), path) == (
        f"{server.url()}: the server answers {expected}; alternatively download the file by hand and name its path in "
        "the config."
    )
    assert len(server.requests) == 1
    assert names(path) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_of_the_server_may_pass(server: Server, path: Path, status: int) -> None:
    server.answers = [refuse(status), refuse(status), serve()]
    download(server.url(), path)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_trouble_of_the_server_that_stays(server: Server, path: Path) -> None:
    server.answers = [refuse(503)]
    assert failure(server.url(), path) == (
        f"{server.url()}: the server answers 503 Service Unavailable. Run again later; alternatively download the file "
        "by hand and name its path in the config."
    )
    assert len(server.requests) == 4


def test_waits_between_attempts_grow(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("langneurons.download.WAITS", (1.0, 2.0, 4.0))
    monkeypatch.setattr("time.sleep", waits.append)
    server.answers = [refuse(500)]
    failure(server.url(), path)
    assert waits == [1.0, 2.0, 4.0]


def test_timeouts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def client(**options: Any) -> None:
        seen.update(options)
        raise ValueError("enough is known")

    monkeypatch.setattr("httpx.Client", client)
    assert "enough is known" in failure("http://127.0.0.1/file", path)
    assert seen["timeout"] == httpx.Timeout(connect=10, read=30, write=30, pool=30)


def test_nobody_listens(path: Path) -> None:
    with socket.socket() as taken:  # held without listening, so that nobody else takes the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file.bin"
        message = failure(url, path)
    assert message == (
        f"{url}: no answer from the server ([Errno 111] Connection refused). Check the address and the network; "
        "alternatively download the file by hand and name its path in the config."
    ).replace("111", re.findall(r"Errno (\d+)", message)[0])  # the number is the operating system's
    assert names(path) == []


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/hosts", "file.bin", "/data/file", "http://", "", "h:"])
def test_other_schemes_are_refused(path: Path, url: str) -> None:
    assert failure(url, path) == (
        f"{url}: not an http or https address. Give one, or download the file by hand and name its path in the config."
    )


def test_a_malformed_address(path: Path) -> None:
    assert failure("http://host:port/file", path) == (
        "http://host:port/file: not a valid address (Invalid port: 'port'). Correct it in the config."
    )


def test_an_unusable_proxy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://proxy")
    message = failure("http://127.0.0.1/file", path)
    assert message.startswith("http://127.0.0.1/file: the environment's settings of the network cannot be used (")
    assert "Check the variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY" in message


def test_a_target_that_is_a_folder(server: Server, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(DownloadError) as caught:
        download(server.url(), path)
    assert str(caught.value) == (
        f"{path}: cannot be written (Is a directory). Check the path, its permissions and the free space, then run "
        f"again; what has come of {server.url()} is kept."
    )
    assert server.requests == []


def test_a_target_in_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"file/file\.bin: cannot be written \("):
        download(server.url(), tmp_path / "file" / "file.bin")


# -- the command line ------------------------------------------------------------------------------------------------


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script, as the workflow calls it; Hugging Face's switch for offline work does not concern it."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_script_downloads(server: Server, path: Path) -> None:
    server.answers = [serve()]
    done = call("--url", server.url(), "--sha256", "", "--output", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert path.read_bytes() == CONTENT


def test_a_mistake_ends_the_script_with_its_message(server: Server, path: Path) -> None:
    server.answers = [serve(OTHER)]
    done = call("--url", server.url(), "--sha256", digest(CONTENT), "--output", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {server.url()}: the file has the sha256 {digest(OTHER)}, but")
    assert done.stderr.count("\n") == 1
    assert names(path) == []
