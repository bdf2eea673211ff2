"""Atomic writing: what a killed, failing or second writer leaves, and what full disks are called."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.numpy
import tokenizers
from transformers import PreTrainedTokenizerFast

from langneurons import errors
from langneurons.published import files
from langneurons.writing import WriteError, atomic, atomic_folder, write_text

HOST = socket.gethostname()


def ended_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_atomic_renames_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
        assert temporary.name == f".file.txt.{HOST}.{os.getpid()}.new.tmp"
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("writer", [atomic, atomic_folder])
def test_an_interrupt_leaves_nothing(writer: Callable[[Path], Any], tmp_path: Path) -> None:
    def interrupted() -> None:
        with writer(tmp_path / "file") as temporary:
            (temporary / "part" if temporary.is_dir() else temporary).write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    """In place of an older one with other files, and of the empty one that Snakemake makes beforehand."""
    path = tmp_path / "model"
    path.mkdir()
    for number in (1, 2):
        with atomic_folder(path) as temporary:
            assert not list(temporary.iterdir())
            (temporary / f"{number}.txt").write_text("one")
            (temporary / "config.json").write_text("two")
            assert not (path / f"{number}.txt").exists()
        assert {file.name for file in path.iterdir()} == {f"{number}.txt", "config.json"}
        assert list(tmp_path.iterdir()) == [path]


def test_a_failing_folder_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("old")

    def failing() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "config.json").write_text("new")
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(WriteError, match=r"model: cannot be written \(Disk quota exceeded\).*within your quota"):
        failing()
    assert (path / "config.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -- what killed writers leave ---------------------------------------------------------------------------------------


def left(folder: Path, name: str, age: float = 0, is_folder: bool = False) -> Path:
    path = folder / name
    if is_folder:
        path.mkdir()
        (path / "part").write_text("half")
    else:
        path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_killed_writers_left_is_removed(is_folder: bool, tmp_path: Path) -> None:
    ended = ended_process()
    left(tmp_path, f".x.json.{HOST}.{ended}.new.tmp", is_folder=is_folder)
    left(tmp_path, f".x.json.{HOST}.{ended}.old.tmp", is_folder=is_folder)
    left(tmp_path, f".x.json.{HOST}.{os.getpid()}.new.tmp")  # numbers are used again: in containers, most are
    left(tmp_path, f".x.json.elsewhere.example.{ended}.new.tmp", 601, is_folder)
    left(tmp_path, f".x.json.{HOST}.1.new.tmp", 601, is_folder)  # number 1 runs, but wrote this long ago
    left(tmp_path, ".x.json.4711.tmp", 601, is_folder)  # of the version before
    write_text(tmp_path / "x.json", "whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]
    assert (tmp_path / "x.json").read_text() == "whole"


def test_what_others_write_is_kept(tmp_path: Path) -> None:
    """Living writers of the same target, here and elsewhere, and all other targets."""
    ended = ended_process()
    kept = {
        left(tmp_path, f".x.json.{HOST}.1.new.tmp"),
        left(tmp_path, f".x.json.elsewhere.{ended}.new.tmp", 300),
        left(tmp_path, f".y.json.{HOST}.{ended}.new.tmp", 3600),
        left(tmp_path, ".x.json.part", 3600),
        left(tmp_path, "x.json.old", 3600),
    }
    write_text(tmp_path / "x.json", "whole")
    assert set(tmp_path.iterdir()) == kept | {tmp_path / "x.json"}


def test_a_killed_writer_leaves_no_target(tmp_path: Path) -> None:
    """Killed with all bytes written but for the name; the next writer cleans up."""
    program = (
        "import os, signal, sys; from langneurons.writing import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    workflow = str(Path(files.__file__).parents[2])
    command = [sys.executable, "-c", program, str(tmp_path / "x")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": workflow}, check=False)
    assert done.returncode == -9
    assert [path.name.endswith(".new.tmp") for path in tmp_path.iterdir()] == [True]
    write_text(tmp_path / "x", "whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_second_writer_that_removed_our_file_is_named(tmp_path: Path) -> None:
    def overtaken() -> None:
        with atomic(tmp_path / "x") as temporary:
            temporary.write_text("half")
            temporary.unlink()

    with pytest.raises(WriteError, match="x: its temporary file is gone: another job writes the same file"):
        overtaken()
    assert list(tmp_path.iterdir()) == []


# -- full disks ------------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Refuse to write more into a file, as a full disk would, in every library."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_tokenizer(path: Path) -> None:
    model = tokenizers.models.WordLevel({str(number): number for number in range(999)}, unk_token="0")
    with atomic_folder(path) as folder:
        PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model)).save_pretrained(folder)


def save_arrays(path: Path) -> None:
    with atomic(path) as temporary:
        safetensors.numpy.save_file({"a": np.arange(9999)}, temporary)


def save_table(path: Path) -> None:
    with atomic(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table({"a": np.random.default_rng(0).random(9999)}), temporary)


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x" * 9999),
    "arrays": save_arrays,
    "table": save_table,
    "torch": lambda path: files.save(path, list(range(9999))),
    "tokenizer": save_tokenizer,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_library_meets_a_full_disk(name: str, tmp_path: Path) -> None:
    """Each words the system's refusal in its own way; one message comes of all."""
    with largest_file(2000), pytest.raises(WriteError) as caught:
        WRITERS[name](tmp_path / "x")
    assert str(caught.value) == (
        f"{tmp_path / 'x'}: cannot be written (File too large). Raise the limit of the size of files (ulimit -f), or "
        "use a file system without one, and run again. Nothing half-written is left, and what was finished before is "
        "kept."
    )
    assert list(tmp_path.iterdir()) == []
    WRITERS[name](tmp_path / "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "(No space left on device). Free space on that disk, and run again."),
        (errno.EDQUOT, "(Disk quota exceeded). Free space within your quota, or ask for a larger one, and run again."),
        (errno.EROFS, "(Read-only file system). Make the file system writable, and run again."),
        (errno.EACCES, "(Permission denied). Correct the path or its permissions, and run again."),
        (errno.ESTALE, "(Stale file handle). Mend that, and run again."),
    ],
)
@pytest.mark.parametrize("when", ["opening", "writing", "waiting for the disk"])
def test_what_the_system_refuses(
    number: int, words: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    places = {"opening": (Path, "mkdir"), "writing": (Path, "write_bytes"), "waiting for the disk": (os, "fsync")}
    with monkeypatch.context() as patch:
        patch.setattr(*places[when], refuse)
        with pytest.raises(WriteError) as caught:
            write_text(tmp_path / "x", "text")
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: cannot be written {words} Nothing half-written is left")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with pytest.raises(WriteError, match=r"x/y: cannot be written \((Not a directory|File exists)\)"):
        write_text(tmp_path / "x" / "y", "text")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "x"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disks_elsewhere_end_a_job_with_a_message(number: int) -> None:
    """Caches of libraries, for example, are not written by this workflow."""

    def main() -> None:
        raise OSError(number, os.strerror(number), "/cache/kernel.so")

    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    remedy = errors.STORAGE_REMEDIES[number]
    assert str(caught.value) == f"error: /cache/kernel.so: {os.strerror(number)}. {remedy}, and run again."
