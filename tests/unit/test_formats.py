"""The stamp of a results folder: results of other formats are refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langneurons import __version__, artifacts, formats


def test_there_is_one_list_of_versions() -> None:
    assert artifacts.VERSIONS is formats.VERSIONS
    assert all(isinstance(version, int) and version > 0 for version in formats.VERSIONS.values())


def test_a_stamped_folder_is_accepted(tmp_path: Path) -> None:
    formats.check(tmp_path)  # without a stamp
    formats.check(tmp_path / "nowhere")
    formats.stamp(tmp_path / "results")
    formats.check(tmp_path / "results")
    assert json.loads((tmp_path / "results" / "formats.json").read_text()) == {
        "langneurons": __version__,
        "formats": formats.VERSIONS,
    }


def test_the_same_stamp_is_not_written_again(tmp_path: Path) -> None:
    formats.stamp(tmp_path)
    first = (tmp_path / "formats.json").stat()
    formats.stamp(tmp_path)
    second = (tmp_path / "formats.json").stat()
    assert (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)


def write(folder: Path, version: str, **changed: int) -> None:
    content = {"langneurons": version, "formats": formats.VERSIONS | changed}
    (folder / "formats.json").write_text(json.dumps(content))


def test_other_versions_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "0.0.7", activations=2, neurons=9)
    with pytest.raises(formats.FormatsError) as caught:
        formats.check(tmp_path)
    version = formats.VERSIONS["activations"], formats.VERSIONS["neurons"]
    assert str(caught.value) == (
        f"{tmp_path}: langneurons 0.0.7 wrote these results. This is {__version__}, and formats of files differ "
        f"(found -> expected): activations: 2 -> {version[0]}, neurons: 9 -> {version[1]}. Continue with the version "
        f"that wrote them; or keep the folder under another name and run again; or let 'make verify DELETE=1' "
        f"delete the files of these formats and {tmp_path / 'formats.json'}, and print the command that makes them "
        "anew."
    )
    assert not formats.is_usable(tmp_path)


def test_another_program_of_the_same_formats_is_accepted(tmp_path: Path) -> None:
    write(tmp_path, "9.9")
    formats.check(tmp_path)
    formats.stamp(tmp_path)
    assert json.loads((tmp_path / "formats.json").read_text())["langneurons"] == __version__


def test_new_and_former_kinds_are_no_difference(tmp_path: Path) -> None:
    kinds = {kind: version for kind, version in formats.VERSIONS.items() if kind != "audit"} | {"former": 4}
    (tmp_path / "formats.json").write_text(json.dumps({"langneurons": "0.0.7", "formats": kinds}))
    formats.check(tmp_path)
    formats.stamp(tmp_path)
    assert json.loads((tmp_path / "formats.json").read_text())["formats"] == formats.VERSIONS


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"langneurons": "1", "formats": 3}', "\x00\xff"])
def test_a_damaged_stamp_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "formats.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(formats.FormatsError, match=r"formats\.json: cannot be read .*Delete it"):
        formats.check(tmp_path)
