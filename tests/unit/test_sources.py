"""Text sources: local files and Wikipedia's form of a dataset."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from langneurons import config
from langneurons.corpus.sources import Document, documents, split_of
from langneurons.errors import CorpusError

SHARE = {"valid": 0.2, "test": 0.3}


def settings_of(path: Path | str, **changes: Any) -> dict[str, Any]:
    """A `files` entry of the config with its defaults."""
    return {"source": "files", "path": str(path), "format": "auto", "document": "file", "field": "text", **changes}


def read(path: Path | str, seed: int = 0, **changes: Any) -> list[Document]:
    settings = settings_of(path, **changes)
    return list(documents(settings, config.source_files(settings, "en"), seed))


def texts(found: list[Document]) -> list[str]:
    return sorted(document.text for document in found)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# -- plain text ------------------------------------------------------------------------------------------------------

TEXT = "First line.\nSecond line.\n\n\n\nThird line.\n \n"


def test_a_file_is_one_document(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", TEXT)) == [Document("a", TEXT.strip())]


def test_a_paragraph_is_a_document(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.txt", TEXT), document="paragraph")
    assert texts(found) == ["First line.\nSecond line.", "Third line."]
    assert len({document.key for document in found}) == 2


def test_a_line_is_a_document(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.txt", TEXT), document="line")
    assert texts(found) == ["First line.", "Second line.", "Third line."]
    assert len({document.key for document in found}) == 3


def test_paragraphs_of_a_file_with_windows_line_ends(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.txt", "One.\r\n\r\nTwo.\r\nStill two.\r\n"), document="paragraph")
    assert texts(found) == ["One.", "Two.\nStill two."]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.txt", b"\xef\xbb\xbfText"))) == ["Text"]


def test_an_empty_file_is_no_document(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", " \n\n")
    write(tmp_path / "b.txt", "Text")
    assert texts(read(tmp_path / "*.txt")) == ["Text"]


def test_not_utf8_names_file_byte_and_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Grün".encode("latin-1"))
    with pytest.raises(CorpusError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not UTF-8 (byte 2 is 0xfc)")
    assert f"iconv -f LATIN1 -t UTF-8 {path}" in message


def test_an_unknown_ending_names_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"a\.doc: the format 'doc' is unknown. Set 'format' to txt, jsonl or parquet"
    ):
        read(write(tmp_path / "a.doc", "Text"))
    assert texts(read(tmp_path / "a.doc", format="txt")) == ["Text"]


# -- JSON lines ------------------------------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"text": "One\\ntwo", "id": 1}\n\n{"text": " Ğ "}\n{"text": ""}\n{"text": null}'
    )
    assert texts(read(path)) == ["One\ntwo", "Ğ"]


def test_json_lines_may_hold_unicode_line_separators(tmp_path: Path) -> None:
    """JSON leaves U+2028 and U+0085 as they are: only the line feed separates records."""
    text = "a\u2028b\u2029c\u0085d"
    path = write(tmp_path / "a.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\n")
    assert texts(read(path)) == [text]


def test_another_field(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.jsonl", '{"body": "B", "text": "T"}'), field="body")) == ["B"]


@pytest.mark.parametrize("line", ['{"body": "B"}', "[1]", '"text"', "5", "null"])
def test_a_missing_field_names_file_line_and_key(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "A"}\n' + line)
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert str(caught.value) == f"{path}, line 2: no field 'text'. Name the right one in 'field'."


def test_a_bad_line_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "A"}\n\n{"text": "B"\n')
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 3: not JSON"):
        read(path)


@pytest.mark.parametrize("value", ["5", "true", '["A"]', '{"en": "A"}'])
def test_a_field_that_is_no_text_is_refused(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": {value}}}')
    with pytest.raises(
        CorpusError, match=r"a\.jsonl, line 1: field 'text' is .*, no text\. Name the right one in 'field'"
    ):
        read(path)


def test_json_lines_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.jsonl: not UTF-8 \(byte 12 is 0xfc\)"):
        read(write(tmp_path / "a.jsonl", b'{}\n{"text": "\xfc"}'.replace(b"{}\n", b" \n")))


def test_half_of_a_surrogate_pair_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "A"}\n{"text": "\\ud83d\\ude00"}\n{"text": "\\ud83d"}')
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 3: field 'text' holds half of a surrogate pair"):
        read(path)


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5000])
def test_json_that_nothing_can_read(tmp_path: Path, value: str) -> None:
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 1: "):
        read(write(tmp_path / "a.jsonl", f'{{"text": {value}}}'))


def test_a_large_file_is_not_kept_in_memory(tmp_path: Path) -> None:
    """Of 8 MB, cut into records of 4 kB, one is kept at a time, and a few numbers of all; a MB is read at a time."""
    path = tmp_path / "a.jsonl"
    with path.open("w") as handle:
        handle.writelines(json.dumps({"text": f"{number} {'x' * 4000}"}) + "\n" for number in range(2000))
    settings = settings_of(path)
    tracemalloc.start()
    try:
        found = documents(settings, [str(path)], 0)
        assert [next(found).text[:2] for _ in range(3)]
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


# -- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", {"id": [1, 2, 3], "text": [" One ", None, "Ğ"], "body": ["x", "y", "z"]}
    )
    assert texts(read(path)) == ["One", "Ğ"]
    assert texts(read(path, field="body")) == ["x", "y", "z"]


def test_a_missing_column_names_the_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": [1], "body": ["x"]})
    with pytest.raises(
        CorpusError, match=r"a\.parquet: no column 'text', but id, body\. Name the right one in 'field'"
    ):
        read(path)


def test_a_column_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": [5, 6]})
    with pytest.raises(CorpusError, match=r"a\.parquet, row 1: field 'text' is '5', no text"):
        read(path)


def test_what_is_no_parquet_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.parquet: not a Parquet file"):
        read(write(tmp_path / "a.parquet", "Text" * 100))


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": [str(number) * 50 for number in range(200)]})
    raw = bytearray(path.read_bytes())
    raw[4:60] = b"\xff" * 56  # the header of the first page; the footer stays whole
    path.write_bytes(raw)
    with pytest.raises(CorpusError, match=r"a\.parquet: not a Parquet file"):
        read(path)


# -- repeated texts --------------------------------------------------------------------------------------------------


def test_a_repeated_text_is_in_one_split(tmp_path: Path) -> None:
    """Under other names, in other files and formats, with other white space around it; all others keep their key."""
    for number in range(40):
        write(tmp_path / f"a-{number:02d}.txt", f"text {number}")
    alone = {document.text: document.key for document in read(tmp_path / "*.*")}
    for number in range(40):
        write(tmp_path / f"b-{number:02d}.txt", f" text {number}\n")
    write(tmp_path / "c.jsonl", "\n".join(json.dumps({"text": f"text {number}"}) for number in range(40)))
    found = read(tmp_path / "*.*")
    assert len(found) == 120
    assert {(document.text, document.key) for document in found} == set(alone.items())
    assert len({split_of(document.key, 0, SHARE) for document in found}) == 3


# -- which files -----------------------------------------------------------------------------------------------------


def test_a_glob_mixes_formats(tmp_path: Path) -> None:
    write(tmp_path / "en" / "a.txt", "A")
    write(tmp_path / "en" / "deep" / "b.jsonl", '{"text": "B"}')
    write_parquet(tmp_path / "en" / "c.parquet", {"text": ["C"]})
    write(tmp_path / "de" / "d.txt", "D")
    assert texts(read(tmp_path / "en" / "*.*")) == ["A", "C"]
    assert texts(read(tmp_path / "en" / "**" / "*.*")) == ["A", "B", "C"]


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "en" / "a.txt", "A")
    monkeypatch.chdir(tmp_path)
    assert read("en/*.txt") == read(tmp_path / "en" / "*.txt") == [Document("a", "A")]


def test_files_that_differ_in_their_ending_alone(tmp_path: Path) -> None:
    for part in ("part.000", "part.001"):
        write(tmp_path / part, part)
    assert {document.key for document in read(tmp_path / "part.*", format="txt")} == {"part.000", "part.001"}


def test_a_compressed_file_of_another_ending(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz: compressed with gzip"):
        read(write(tmp_path / "a.jsonl.gz", gzip.compress(b"{}")))


def test_a_folder_in_place_of_files(tmp_path: Path) -> None:
    with pytest.raises(
        config.ConfigError, match=r"of language 'en' is the folder '.*'\. Name its files, such as .*/\*\.txt"
    ):
        read(tmp_path)


def test_no_file_names_the_language_and_the_pattern(tmp_path: Path) -> None:
    with pytest.raises(
        config.ConfigError, match=r"language 'en' has no file: nothing matches '.*/\*\.txt'.*relative to"
    ):
        read(tmp_path / "*.txt")


# -- keys, splits and order ------------------------------------------------------------------------------------------


def splits_of(found: list[Document], seed: int = 0) -> dict[str, str]:
    return {document.text: split_of(document.key, seed, SHARE) for document in found}


def test_splits_take_their_shares() -> None:
    splits = [split_of(f"document-{number}", 0, SHARE) for number in range(10_000)]
    # The standard deviation of a share is at most 0.005 of 10,000 documents; four of them.
    assert splits.count("test") / 10_000 == pytest.approx(0.3, abs=0.02)
    assert splits.count("valid") / 10_000 == pytest.approx(0.2, abs=0.02)
    assert set(splits) == {"train", "valid", "test"}


def test_no_share_no_documents() -> None:
    assert {split_of(str(number), 0, {"valid": 0, "test": 0}) for number in range(100)} == {"train"}


def test_splits_depend_on_key_and_seed_alone() -> None:
    keys = [f"key-{number}" for number in range(200)]
    assert [split_of(key, 1, SHARE) for key in keys] == [split_of(key, 1, SHARE) for key in keys]
    assert [split_of(key, 1, SHARE) for key in keys] != [split_of(key, 2, SHARE) for key in keys]


def test_a_larger_test_share_only_adds_to_the_test_split() -> None:
    for key in map(str, range(500)):
        if split_of(key, 0, SHARE) == "test":
            assert split_of(key, 0, {"valid": 0.2, "test": 0.5}) == "test"


def test_the_same_file_name_is_in_the_same_split_in_every_language(tmp_path: Path) -> None:
    for language in ("en", "de"):
        for number in range(30):
            write(tmp_path / language / f"topic-{number}.txt", f"{number}")
    assert splits_of(read(tmp_path / "en" / "*.txt")) == splits_of(read(tmp_path / "de" / "*.txt"))


@pytest.mark.parametrize("document", ["file", "paragraph", "line"])
def test_documents_do_not_move_when_files_are_added(tmp_path: Path, document: str) -> None:
    for number in range(30):
        write(tmp_path / "text" / "b" / f"{number}.txt", f"{number} one\n\n{number} two")
    before = splits_of(read(tmp_path / "text" / "**" / "*.txt", document=document))
    for number in range(30):  # earlier in the order, and of the same names
        write(tmp_path / "text" / "a" / f"{number}.txt", f"{number} new")
    after = splits_of(read(tmp_path / "text" / "**" / "*.txt", document=document))
    assert len(after) == len(before) + 30
    assert {text: after[text] for text in before} == before
    assert len(set(before.values())) == 3


@pytest.mark.parametrize(
    ("name", "separator", "changes"),
    [
        ("a.txt", "\n", {"document": "line"}),
        ("a.txt", "\n\n", {"document": "paragraph"}),
        ("a.jsonl", "\n", {}),
    ],
)
def test_documents_do_not_move_when_a_file_grows(tmp_path: Path, name: str, separator: str, changes: Any) -> None:
    def content(file: int, number: int) -> str:
        rows = [f"file {file} text {index}" for index in range(number)]
        return separator.join(json.dumps({"text": row}) if name.endswith("jsonl") else row for row in rows)

    grown: dict[str, str] = {}
    for number in (1, 2, 5):
        for file in range(20):
            write(tmp_path / f"{file}-{name}", content(file, number))
        found = splits_of(read(tmp_path / f"*{name}", **changes))
        assert len(found) == 20 * number
        assert {text: found[text] for text in grown} == grown
        grown = found
    assert len(set(grown.values())) == 3


def test_files_of_one_name_in_several_folders_are_different_documents(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / str(number) / "part.txt", f"text {number}")
    found = read(tmp_path / "*" / "part.txt")
    assert len({document.key for document in found}) == 40
    assert len(set(splits_of(found).values())) == 3


def test_the_order_is_random_and_fixed_by_the_seed(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"{number:02d}.txt", f"{number:02d}")
    orders = {seed: [document.text for document in read(tmp_path / "*.txt", seed)] for seed in range(4)}
    assert orders[0] == [document.text for document in read(tmp_path / "*.txt", 0)]
    assert sorted(orders[0]) == [f"{number:02d}" for number in range(20)]
    assert len({tuple(order) for order in [*orders.values(), sorted(orders[0])]}) == 5


def test_the_order_does_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    files = [str(write(tmp_path / f"{number}.txt", f"{number}")) for number in range(20)]
    settings = settings_of(tmp_path / "*.txt")
    assert list(documents(settings, files, 3)) == list(documents(settings, files[::-1], 3))


# -- Wikipedia -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wikipedia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local folder of the form of the hub repository wikimedia/wikipedia."""
    folder = tmp_path_factory.mktemp("wikipedia")
    configs = ""
    for code in ("en", "tr"):
        for part in range(2):
            ids = [f"{code}{number}" for number in range(part * 20, part * 20 + 20)]
            columns = {
                "id": ids,
                "url": [f"https://{code}.wikipedia.org/wiki/{one}" for one in ids],
                "title": [f"Title {one}" for one in ids],
                "text": [f" Text of {one}.\n\nIğdır. \n" for one in ids],
            }
            write_parquet(folder / f"20231101.{code}" / f"train-0000{part}-of-00002.parquet", columns)
        configs += (
            f"- config_name: 20231101.{code}\n  data_files:\n  - split: train\n    path: 20231101.{code}/train-*\n"
        )
    (folder / "README.md").write_text(
        f"---\nlanguage:\n- en\n- tr\nconfigs:\n{configs}---\n\n# Wikipedia\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def articles(dataset: Path | str, code: str = "tr", seed: int = 0, buffer: int = 10) -> list[Document]:
    settings = {
        "source": "wikipedia",
        "dataset": str(dataset),
        "snapshot": "20231101",
        "code": code,
        "revision": "main",
        "shuffle_buffer": buffer,
    }
    return list(documents(settings, [], seed))


@pytest.mark.usefixtures("cache")
def test_wikipedia_gives_every_article_once(wikipedia: Path) -> None:
    found = articles(wikipedia)
    assert sorted(document.key for document in found) == sorted(f"tr{number}" for number in range(40))
    assert {document.text for document in found} == {f"Text of tr{number}.\n\nIğdır." for number in range(40)}
    assert {document.key[:2] for document in articles(wikipedia, "en")} == {"en"}


@pytest.mark.usefixtures("cache")
def test_wikipedia_is_shuffled_by_the_seed(wikipedia: Path) -> None:
    orders = {seed: [document.key for document in articles(wikipedia, seed=seed)] for seed in (0, 1)}
    assert orders[0] == [document.key for document in articles(wikipedia, seed=0)]
    assert orders[0] != orders[1]
    assert [f"tr{number}" for number in range(40)] not in orders.values()
    # A buffer of 10 cannot fetch an article of the last twenty to the front, the shuffled order of the two files can.
    first = {document.key for seed in range(8) for document in articles(wikipedia, seed=seed)[:1]}
    assert any(int(key[2:]) < 20 for key in first)
    assert any(int(key[2:]) >= 20 for key in first)


@pytest.mark.usefixtures("cache")
def test_wikipedia_is_streamed(wikipedia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []
    load = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **options: calls.append(options) or load(*args, **options)
    )
    articles(wikipedia)
    assert [(call["streaming"], call["split"], call["revision"]) for call in calls] == [(True, "train", "main")]


def of_form(folder: Path, columns: dict[str, list[Any]]) -> Path:
    """A dataset of one configuration, 20231101.tr."""
    write_parquet(folder / "20231101.tr" / "train.parquet", columns)
    data = "- config_name: 20231101.tr\n  data_files: 20231101.tr/*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{data}---\n", encoding="utf-8")
    return folder


@pytest.mark.usefixtures("cache")
def test_a_repeated_article_has_the_key_of_the_first(tmp_path: Path) -> None:
    folder = of_form(tmp_path / "twice", {"id": list("abcd"), "text": ["One", "Two", "One ", "Two"]})
    found = articles(folder)
    assert len(found) == 4
    assert len({(document.key, document.text) for document in found}) == 2


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("columns", "missing"), [(("id", "body"), "text"), (("title", "text"), "id")])
def test_a_dataset_of_another_form(tmp_path: Path, columns: tuple[str, ...], missing: str) -> None:
    folder = of_form(tmp_path / "other", {column: ["A"] for column in columns})
    with pytest.raises(CorpusError, match=rf"has no column '{missing}', but {', '.join(columns)}\. Name a dataset"):
        articles(folder)


@pytest.mark.usefixtures("cache")
def test_a_dataset_with_a_loading_script(tmp_path: Path) -> None:
    """Of others nothing is run: the library refuses, and its reason is passed on."""
    write(tmp_path / "scripted" / "scripted.py", "raise SystemExit('it ran')\n")
    with pytest.raises(CorpusError, match=r"\(20231101\.tr\) cannot be read: .*Check the network and the name"):
        articles(tmp_path / "scripted")


@pytest.mark.usefixtures("cache")
def test_a_language_that_wikipedia_does_not_have(wikipedia: Path) -> None:
    with pytest.raises(CorpusError, match=r"\(20231101\.xx\) cannot be read: BuilderConfig '20231101\.xx' not found"):
        articles(wikipedia, "xx")


@pytest.mark.usefixtures("cache")
def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"the dataset '.*nowhere' \(20231101\.tr\) cannot be read.*a local folder"):
        articles(tmp_path / "nowhere")


def test_an_unreachable_dataset_ends_quickly_with_a_message(tmp_path: Path) -> None:
    """In a process of its own, since these variables are read on import."""
    code = (
        "import json, sys, time\n"
        "pauses = []\n"
        "time.sleep = pauses.append\n"
        "from langneurons.corpus.sources import CorpusError, documents\n"
        "try:\n"
        "    next(documents(json.loads(sys.argv[1]), [], 0))\n"
        "except CorpusError as error:\n"
        "    print(error)\n"
        "print('pauses:', pauses, file=sys.stderr)\n"
    )
    settings = {"source": "wikipedia", "dataset": "wikimedia/wikipedia", "snapshot": "20231101", "code": "tr"}
    settings |= {"revision": "main", "shuffle_buffer": 10}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    workflow = Path(config.__file__).parents[1]
    finished = subprocess.run(
        [sys.executable, "-c", code, json.dumps(settings)],
        env={**os.environ, **offline, "PYTHONPATH": str(workflow)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "pauses: []" in finished.stderr  # five retries would take 24 s
    assert "Retrying" not in finished.stderr
    assert finished.stdout.startswith("the dataset 'wikimedia/wikipedia' (20231101.tr) cannot be read: Couldn't reach")
    assert "Check the network and the name" in finished.stdout
    assert "name a local folder" in finished.stdout
