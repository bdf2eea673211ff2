"""Downloads that continue after an interruption, are checked, and appear under their name only when complete.

What has come lies beside the target under a hidden name, with a note of which version of the file it belongs to. It is
continued only if the server confirms that version, or if a checksum would reveal a mixture of two.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import time
import zlib
from dataclasses import asdict, dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NoReturn

import httpx
from tqdm import tqdm

from langneurons.errors import UserError

CONNECT_TIMEOUT = 10.0
"""Seconds until a server has to accept the connection."""

READ_TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt; there are as many as entries."""

BY_HAND = "download the file by hand and name its path in the config"


class DownloadError(UserError):
    """A file that cannot be downloaded, with its address and the remedy."""


class _PassingError(Exception):
    """A failure that another attempt may mend."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def download(url: str, path: str | Path, sha256: str | None = None) -> None:
    """Download a file, continuing where an earlier attempt ended.

    An existing file is kept if it has the given checksum, and replaced otherwise.

    Args:
        url: an http or https address; redirects are followed.
        path: where the file goes, once it is complete and checked.
        sha256: the checksum the file must have, in hexadecimal digits; None: any.

    Raises:
        DownloadError: bad address or checksum, no or a refusing server, a file cut short or with another checksum, or
            a target that cannot be written.
    """
    path = Path(path)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise DownloadError(
            f"{url}: {sha256!r} is no sha256 checksum, which has 64 hexadecimal digits. Correct it in the config."
        )
    _check_address(url)
    part = _Part.of(path, url)
    try:
        if sha256 is not None and path.is_file() and _digest(path) == sha256.lower():
            return
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with _client(url) as client:
            _fetch(client, url, part, checked=sha256 is not None)
        _finish(url, part, path, sha256)
    except OSError as error:  # no network error: httpx has its own
        raise DownloadError(
            f"{path}: cannot be written ({error.strerror or error}). Check the path, its permissions and the free "
            f"space, then run again; what has come of {url} is kept."
        ) from None


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check_address(url: str) -> None:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise DownloadError(f"{url}: not a valid address ({error}). Correct it in the config.") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise DownloadError(f"{url}: not an http or https address. Give one, or {BY_HAND}.")


def _client(url: str) -> httpx.Client:
    try:
        return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT))
    except (ImportError, OSError, ValueError) as error:  # an unusable proxy or certificate file
        raise DownloadError(
            f"{url}: the environment's settings of the network cannot be used ({error}). Check the variables "
            f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, or {BY_HAND}."
        ) from None


# -- what has come ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Origin:
    """What the server said about the file when its part was begun."""

    validator: str
    """ETag or date that proves that two answers are the same file; empty if the server gave none that does."""
    total: int | None
    encoding: str


@dataclass(frozen=True)
class _Part:
    """The bytes that have come, and the note beside them."""

    file: Path
    note: Path

    @classmethod
    def of(cls, path: Path, url: str) -> _Part:
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]  # another address never continues this part
        return cls(path.with_name(f".{path.name}.{digest}.part"), path.with_name(f".{path.name}.{digest}.json"))

    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def origin(self) -> _Origin | None:
        try:
            return _Origin(**json.loads(self.note.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def begin(self, origin: _Origin) -> None:
        self.file.write_bytes(b"")  # first: old bytes must not meet the new note
        self.note.write_text(json.dumps(asdict(origin)), encoding="utf-8")

    def continues(self, checked: bool) -> bool:
        """Whether another request may continue it."""
        origin = self.origin()
        return origin is not None and (checked or origin.validator != "")

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _origin(headers: httpx.Headers) -> _Origin:
    length = "" if "Transfer-Encoding" in headers else headers.get("Content-Length", "")
    return _Origin(
        validator=_validator(headers),
        total=int(length) if length.isdecimal() else None,
        encoding=headers.get("Content-Encoding", "identity").strip().lower(),
    )


def _validator(headers: httpx.Headers) -> str:
    """The value for If-Range, which takes strong validators only (RFC 9110, 13.1.5 and 8.8.2.2)."""
    if tag := headers.get("ETag", ""):
        return tag if tag.startswith('"') and tag.isascii() else ""
    try:
        age = parsedate_to_datetime(headers["Date"]) - parsedate_to_datetime(headers["Last-Modified"])
    except (KeyError, TypeError, ValueError):
        return ""
    return headers["Last-Modified"] if age >= timedelta(seconds=1) else ""


# -- requests ---------------------------------------------------------------------------------------------------------


def _fetch(client: httpx.Client, url: str, part: _Part, checked: bool) -> None:
    """Complete the part, in several attempts if need be."""
    for wait in (*WAITS, None):
        try:
            if not (part.continues(checked) and _request(client, url, part, part.size(), checked)):
                _request(client, url, part, 0, checked)
            return
        except _PassingError as error:
            if wait is None:
                raise DownloadError(f"{url}: {error.reason}. {_kept(part, checked)}{error.remedy}") from None
            print(f"{url}: {error.reason}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def _kept(part: _Part, checked: bool) -> str:
    """What the next run does with the bytes that have come."""
    if part.size() == 0:
        return ""
    if part.continues(checked):
        return f"What has come ({part.size()} bytes) is kept in {part.file}, and running again continues. "
    return "Running again starts anew: the server does not name the file's version, and there is no sha256. "


def _request(client: httpx.Client, url: str, part: _Part, start: int, checked: bool) -> bool:
    """Fetch the file from the byte `start` on; False if the server cannot continue it there."""
    origin = part.origin()
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if origin and origin.validator:
            headers["If-Range"] = origin.validator
    try:
        with client.stream("GET", url, headers=headers) as response:
            status = response.status_code
            if start and origin and status in (206, 416):
                if status == 416 or not _is_rest(response.headers, start, origin):
                    return False
                total = origin.total or _range(response.headers)[1]
            elif status == 200:
                begun = _origin(response.headers)
                part.begin(begun)
                total = begun.total
            else:
                _refuse(url, response)
            _save(response, part, total)
            return True
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise DownloadError(f"{url}: its redirects lead nowhere ({error}). Check the address, or {BY_HAND}.") from None
    except httpx.HTTPError as error:
        raise _PassingError(
            f"no answer from the server ({_reason(error)})",
            f"Check the address and the network; alternatively {BY_HAND}.",
        ) from None


def _range(headers: httpx.Headers) -> tuple[int | None, int | None]:
    """Where a partial answer starts, and how long the whole file is."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _is_rest(headers: httpx.Headers, start: int, origin: _Origin) -> bool:
    """Whether a partial answer continues the part: the right place of the same file."""
    place, total = _range(headers)
    if place != start or (total is not None and origin.total not in (None, total)):
        return False
    # Servers that ignore If-Range send the rest of a changed file; most of them name its version.
    name = "ETag" if origin.validator.startswith('"') else "Last-Modified"
    return not origin.validator or headers.get(name, origin.validator) == origin.validator


def _refuse(url: str, response: httpx.Response) -> NoReturn:
    status = response.status_code
    reason = f"the server answers {status} {response.reason_phrase}".rstrip()
    if status == 429 or status >= 500:
        raise _PassingError(reason, f"Run again later; alternatively {BY_HAND}.")
    if status in (401, 403):
        remedy = "Access may need a login or the consent to a licence: check the address in a browser"
    elif status in (404, 410):
        remedy = "The file is not there (any more): check the address"
    else:
        remedy = "Check the address"
    raise DownloadError(f"{url}: {reason}. {remedy}; alternatively {BY_HAND}.")


def _save(response: httpx.Response, part: _Part, total: int | None) -> None:
    """Append an answer's body to the part."""
    terminal = sys.stderr.isatty()
    ending = "the server closed it"
    with (
        part.file.open("ab") as handle,
        tqdm(
            desc=f"download {response.url.host}",
            total=total,
            initial=part.size(),
            unit="B",
            unit_scale=True,
            mininterval=0.2 if terminal else 5,
            delay=0 if terminal else 3,
            file=sys.stderr,
        ) as bar,
    ):
        try:
            for chunk in response.iter_raw():  # without a chunk size, which would hold back the last bytes
                handle.write(chunk)
                bar.update(len(chunk))
            complete = True
        except httpx.TransportError as error:
            ending = _reason(error)
            complete = False
    size = part.size()
    if complete and total in (None, size):
        return
    known = f"{size} of {total} bytes" if total is not None else f"{size} bytes of an unknown number"
    if total is not None and size > total:  # the file has changed, or another process downloads it as well
        part.discard()
        raise _PassingError(f"{known} came", f"Run again, once at a time; alternatively {BY_HAND}.")
    raise _PassingError(
        f"the connection ended after {known} ({ending})", f"Check the network; alternatively {BY_HAND}."
    )


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


# -- the complete file ------------------------------------------------------------------------------------------------


def _finish(url: str, part: _Part, path: Path, sha256: str | None) -> None:
    """Check the complete part and give it the name of the target."""
    origin = part.origin()
    encoding = origin.encoding if origin else "identity"
    content = part.file
    try:
        # Some servers call a .gz file itself an encoding; there the file is meant, not what is in it.
        compressed = any(name.endswith((".gz", ".tgz")) for name in (httpx.URL(url).path, path.name))
        if encoding != "identity" and not compressed:
            content = part.file.with_suffix(".unpacked")
            _unpack(url, part, content, encoding)
        with content.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        if sha256 is not None and found != sha256.lower():
            part.discard()
            raise DownloadError(
                f"{url}: the file has the sha256 {found}, but {sha256.lower()} is expected. Either the sha256 in the "
                "config is wrong: correct it; or the file at the server has changed: find the right address. What has "
                "come is deleted; the next run starts from the beginning."
            )
        content.replace(path)
        part.discard()
    finally:
        if content != part.file:
            content.unlink(missing_ok=True)


def _unpack(url: str, part: _Part, target: Path, encoding: str) -> None:
    """Undo the compression of a server that compresses although it was asked not to."""
    if encoding not in ("gzip", "x-gzip"):
        part.discard()
        raise DownloadError(
            f"{url}: the server sends the file in the encoding {encoding!r}, which was not asked for. Use another "
            f"address, or {BY_HAND}."
        )
    try:
        with gzip.open(part.file) as packed, target.open("wb") as handle:
            shutil.copyfileobj(packed, handle, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        part.discard()
        raise DownloadError(
            f"{url}: the server's compression is damaged ({error}). Run again to start anew, or {BY_HAND}."
        ) from None
