"""Atomic writing, also on file systems that several machines share. The standard library only.

What is written goes into a temporary file in the same folder, which then takes the target's name: a reader finds the
old content, the new content or nothing, whenever the writer is killed. The temporary name carries the machine and the
process, so that two writers never share one, and the next writer knows what a killed one has left.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langneurons.errors import STORAGE_REMEDIES, UserError

ABANDONED = 600.0
"""Seconds after which a temporary file of another machine is taken for one that a killed job left. Whoever writes
touches it all the time; should a stalled writer wake up later, it finds its file gone, and fails with a message."""

ERROR_NUMBER = re.compile(r"\b(?:os error|errno) (\d+)", re.IGNORECASE)
"""How libraries in Rust and C++ put the system's error number into their messages."""


class WriteError(UserError):
    """A file that cannot be written, with its path and the remedy."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` that becomes `path` when the block ends without an error.

    Raises:
        WriteError: the disk is full, a quota is used up, or the system refuses the file for another reason.
    """
    path = Path(path)
    temporary = _temporary(path)
    with _explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            yield temporary
            _to_disk(temporary)
            temporary.replace(path)
        finally:
            _remove(temporary)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path`, in place of what was there, when the block ends without an
    error. Either all of its files are there, or none.

    Raises:
        WriteError: as for `atomic`.
    """
    path = Path(path)
    temporary, old = _temporary(path), _temporary(path, "old")
    with _explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            _remove(temporary)  # of a killed writer with our number
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _to_disk(file)
            if path.exists():
                path.replace(old)  # a folder with files in it cannot be replaced
            temporary.replace(path)
        finally:
            _remove(temporary)
            if old.exists() and not path.exists():
                old.replace(path)
            _remove(old)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, UTF-8, Unix line ends."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


# -- temporary names --------------------------------------------------------------------------------------------------


def _machine() -> str:
    return socket.gethostname().replace("/", "-")


def _temporary(path: Path, role: str = "new") -> Path:
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{role}.tmp")


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of the same target left."""
    for other in path.parent.iterdir():
        if other.name.startswith(f".{path.name}.") and other.name.endswith(".tmp") and _is_abandoned(other, path):
            _remove(other)


def _is_abandoned(temporary: Path, target: Path) -> bool:
    machine, _, process = temporary.name[len(target.name) + 2 : -len(".new.tmp")].rpartition(".")
    if machine == _machine() and process.isdecimal() and not _runs(int(process)):
        return True
    try:
        return time.time() - temporary.stat().st_mtime > ABANDONED
    except FileNotFoundError:  # its writer has just finished
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk. Network file systems report here that it is full."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


# -- messages ---------------------------------------------------------------------------------------------------------


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system and the libraries raise when a file cannot be written into one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        raise WriteError(
            f"{path}: {_cannot(error, number)}. Nothing half-written is left, and what was finished before is kept."
        ) from None


def _error_number(error: Exception) -> int | None:
    """The system's number of an error, which some libraries have in the message alone; None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = ERROR_NUMBER.search(str(error))
    return int(found[1]) if found else None


def _cannot(error: Exception, number: int) -> str:
    if number == errno.ENOENT:
        return (
            "its temporary file is gone: another job writes the same file, or someone deleted it. Make sure that no "
            "other run uses this folder, and run again"
        )
    return f"cannot be written ({os.strerror(number)}). {STORAGE_REMEDIES.get(number, 'Mend that')}, and run again"
