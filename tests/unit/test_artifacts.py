"""Files between jobs: exact round trips, and nothing damaged, foreign or half written is ever read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langneurons import artifacts
from langneurons.artifacts import ArtifactError
from langneurons.corpus.windows import TokenWindows
from langneurons.interventions import Intervention, deactivate, shift
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans
from langneurons.writing import WriteError

Read = Callable[[Path], Any]

# -- one example of each kind of file --------------------------------------------------------------------------------

METADATA = {"language": "tr", "tokenizer": {"model": "ü/ğ", "revision": None}, "tokens": 6, "share": 0.1}
WINDOWS = TokenWindows(np.array([[0, 1, 2], [3, 4, 2**32 - 1]], dtype=np.uint32), METADATA)
COUNTS = ActivationCounts(
    over_zero=np.array([[0, 1], [2**40, 3]], dtype=np.int64),
    activation_sum=np.array([[0.1, -2.5e-300], [1e300, -0.0]]),
    product_sum=np.array([[1 / 3, np.pi], [-1.0, 0.0]]),
    tokens=2**40,
)
PARTS = ActivationCounts(
    over_zero=COUNTS.over_zero,
    activation_sum=COUNTS.activation_sum,
    product_sum=COUNTS.product_sum,
    tokens=COUNTS.tokens,
    half_over_zero=np.array([[0, 1], [2**39, 2]], dtype=np.int64),
    half_tokens=2**39,
    quarter_over_zero=np.array([[0, 0], [2**38, 1]], dtype=np.int64),
    quarter_tokens=2**38,
    hidden_sum=np.array([[0.1, -0.0, 1e300], [1 / 3, 5e-324, -2.0]]),
)
"""The same recording with all that one can hold; hidden states are wider than there are neurons."""
SENTENCES = SentenceMeans(
    np.array([[[0.1, -2], [65504, 6e-8]], [[0, 1 / 3], [-0.0, 1]]], dtype=np.float16), np.array([5, 64], dtype=np.int64)
)
NEURONS = pd.DataFrame(
    {
        "language": pd.Series(["de", "en", "tr"], dtype="str"),
        "layer": np.array([0, 1, 31], dtype=np.int64),
        "neuron": np.array([7, 0, 11007], dtype=np.int64),
        "entropy": np.array([0.1, 1 / 3, 5e-324]),
        "probability": np.array([0.7, 0.1, 1.0], dtype=np.float32),
    }
)
EDIT = Intervention(
    pd.DataFrame(
        {
            "layer": np.array([0, 3], dtype=np.int64),
            "neuron": np.array([5, 1], dtype=np.int64),
            "keep": [0.0, 0.1],
            "fill": [1 / 3, -2.0],
        }
    ),
    "product",
)
OUTPUTS = [
    "",
    "Iğdır'ın ılık şöleni: İSTANBUL ıiIİ ğüşöç",
    "👩‍👩‍👧 🏳️‍🌈 emoji",
    "line\u2028separator\u2029paragraph\u0085next",
    'two\nlines\r\nand\ta tab, "quotes" and \\n',
    "\x00\x1b\x7f\ufeff\ufffd",
    "null",
    "12",
]
RECORDS = [
    {
        "id": f"tr-{number:03d}",
        "split": "test",
        "input": "Q: Niçin?\nA:",
        "output": output,
        "output_tokens": number,
        "finish_reason": "stop",
    }
    for number, output in enumerate(OUTPUTS, 1)
]
DOCUMENT = {"none": None, "true": True, "number": 0.1, "text": "ğ\n\u2028", "rows": [{"layer": 1}, {}], "tiny": 5e-324}


@dataclass(frozen=True)
class Example:
    kind: str
    name: str
    write: Callable[[Path], None]
    read: Read


EXAMPLES = {
    example.kind: example
    for example in (
        Example(
            "tokens", "en.train.safetensors", lambda path: artifacts.write_tokens(path, WINDOWS), artifacts.read_tokens
        ),
        Example(
            "activations",
            "en.safetensors",
            lambda path: artifacts.write_activations(path, COUNTS, METADATA),
            artifacts.read_activations,
        ),
        Example(
            "sentences",
            "en.safetensors",
            lambda path: artifacts.write_sentences(path, SENTENCES, METADATA),
            artifacts.read_sentences,
        ),
        Example(
            "neurons",
            "lape.parquet",
            lambda path: artifacts.write_table(path, "neurons", NEURONS, METADATA),
            lambda path: artifacts.read_table(path, "neurons"),
        ),
        Example(
            "intervention",
            "deactivate-en.parquet",
            lambda path: artifacts.write_intervention(path, EDIT, {"language": "en"}),
            artifacts.read_intervention,
        ),
        Example(
            "generations",
            "en.jsonl",
            lambda path: artifacts.write_records(path, "generations", RECORDS),
            lambda path: artifacts.read_records(path, "generations"),
        ),
        Example(
            "effect",
            "deactivate-en.json",
            lambda path: artifacts.write_document(path, "effect", DOCUMENT),
            lambda path: artifacts.read_document(path, "effect"),
        ),
    )
}
every_kind = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())


def content(value: Any) -> Any:
    """A value with its types and bits, so that `==` means exactly equal."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, pd.DataFrame):
        columns = {name: (str(column.dtype), column.tolist()) for name, column in value.items()}
        bits = {name: column.to_numpy().tobytes() for name, column in value.items() if column.dtype.kind in "iuf"}
        return (list(value.columns), list(value.index), columns, bits)
    if isinstance(value, TokenWindows | ActivationCounts | SentenceMeans | Intervention):
        return [(name, content(part)) for name, part in vars(value).items()]
    if isinstance(value, tuple):
        return tuple(content(part) for part in value)
    return json.dumps(value, sort_keys=True)


# -- round trips -----------------------------------------------------------------------------------------------------


def round_trip(kind: str, folder: Path) -> Any:
    example = EXAMPLES[kind]
    example.write(folder / example.name)
    return example.read(folder / example.name)


def test_tokens(tmp_path: Path) -> None:
    assert content(round_trip("tokens", tmp_path)) == content(WINDOWS)


def test_activations(tmp_path: Path) -> None:
    assert content(round_trip("activations", tmp_path)) == content((COUNTS, METADATA))


def test_the_number_of_tokens_is_a_scalar(tmp_path: Path) -> None:
    round_trip("activations", tmp_path)
    arrays, _ = artifacts.read_arrays(tmp_path / "en.safetensors", "activations")
    assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == {
        "over_zero": ("<i8", (2, 2)),
        "activation_sum": ("<f8", (2, 2)),
        "product_sum": ("<f8", (2, 2)),
        "tokens": ("<i8", ()),
    }


def test_activations_with_all_parts(tmp_path: Path) -> None:
    path = tmp_path / "en.safetensors"
    artifacts.write_activations(path, PARTS, METADATA)
    assert content(artifacts.read_activations(path)) == content((PARTS, METADATA))
    arrays, _ = artifacts.read_arrays(path, "activations")
    assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == {
        **dict.fromkeys(("over_zero", "half_over_zero", "quarter_over_zero"), ("<i8", (2, 2))),
        **dict.fromkeys(("activation_sum", "product_sum"), ("<f8", (2, 2))),
        **dict.fromkeys(("tokens", "half_tokens", "quarter_tokens"), ("<i8", ())),
        "hidden_sum": ("<f8", (2, 3)),
    }


LACKING = {
    "the sums": {"activation_sum": None, "product_sum": None},
    "the quarter": {"quarter_over_zero": None, "quarter_tokens": 0},
    "all parts": {"half_over_zero": None, "half_tokens": 0, "quarter_over_zero": None, "quarter_tokens": 0},
    "the hidden states": {"hidden_sum": None},
}


@pytest.mark.parametrize("lacking", LACKING)
def test_activations_without(lacking: str, tmp_path: Path) -> None:
    """What is missing stays missing: no zeros and no empty arrays."""
    counts = replace(PARTS, **LACKING[lacking])
    artifacts.write_activations(tmp_path / "en.safetensors", counts, METADATA)
    assert content(artifacts.read_activations(tmp_path / "en.safetensors")) == content((counts, METADATA))
    arrays, _ = artifacts.read_arrays(tmp_path / "en.safetensors", "activations")
    assert not set(LACKING[lacking]) & set(arrays)


@pytest.mark.parametrize("version", [1, 2])
def test_activations_of_a_former_format_are_refused(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lack hidden states and parts of the text, which nothing but a new recording can supply."""
    path = tmp_path / "en.safetensors"
    with monkeypatch.context() as patch:
        patch.setitem(artifacts.VERSIONS, "activations", version)
        artifacts.write_activations(path, COUNTS, METADATA)
    with pytest.raises(ArtifactError, match=f"has the format activations-{version}, but .* reads activations-3"):
        artifacts.read_activations(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sentences(dtype: type, tmp_path: Path) -> None:
    sentences = replace(SENTENCES, means=SENTENCES.means.astype(dtype))
    artifacts.write_sentences(tmp_path / "en.safetensors", sentences, METADATA)
    assert content(artifacts.read_sentences(tmp_path / "en.safetensors")) == content((sentences, METADATA))


def test_impossible_means_of_sentences_are_refused_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "en.safetensors"
    artifacts.write_sentences(path, replace(SENTENCES, tokens=np.array([5, 0])), {})
    with pytest.raises(ArtifactError, match=r"en\.safetensors: a sentence has no token"):
        artifacts.read_sentences(path)


def test_a_shift_of_the_residual_stream(tmp_path: Path) -> None:
    edit = shift({2: np.array([0.1, -5e-324, 0])})
    artifacts.write_intervention(tmp_path / "edit.parquet", edit, {"scale": 2})
    assert content(artifacts.read_intervention(tmp_path / "edit.parquet")) == content(edit)


def test_neurons(tmp_path: Path) -> None:
    assert content(round_trip("neurons", tmp_path)) == content((NEURONS, METADATA))


def test_intervention(tmp_path: Path) -> None:
    assert content(round_trip("intervention", tmp_path)) == content(EDIT)


def test_generations(tmp_path: Path) -> None:
    assert round_trip("generations", tmp_path) == RECORDS


def test_document(tmp_path: Path) -> None:
    assert round_trip("effect", tmp_path) == DOCUMENT


def test_empty_tables(tmp_path: Path) -> None:
    nothing = deactivate(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    artifacts.write_intervention(tmp_path / "edit.parquet", nothing, {})
    assert content(artifacts.read_intervention(tmp_path / "edit.parquet")) == content(nothing)
    artifacts.write_table(tmp_path / "neurons.parquet", "neurons", NEURONS.iloc[:0])
    assert content(artifacts.read_table(tmp_path / "neurons.parquet", "neurons")) == content((NEURONS.iloc[:0], {}))


def test_missing_numbers_in_tables(tmp_path: Path) -> None:
    table = pd.DataFrame({"share": [0.5, np.nan], "language": pd.Series(["tr", None], dtype="str")})
    artifacts.write_table(tmp_path / "t.parquet", "text-metrics", table)
    pd.testing.assert_frame_equal(
        artifacts.read_table(tmp_path / "t.parquet", "text-metrics")[0], table, check_exact=True
    )


def test_the_index_of_a_table_is_not_kept(tmp_path: Path) -> None:
    artifacts.write_table(tmp_path / "t.parquet", "neurons", NEURONS.iloc[::-1])
    table, _ = artifacts.read_table(tmp_path / "t.parquet", "neurons")
    assert content(table) == content(NEURONS.iloc[::-1].reset_index(drop=True))


def test_a_view_of_an_array(tmp_path: Path) -> None:
    """safetensors writes the memory behind an array: a transposed one must be made contiguous first."""
    array = np.arange(6, dtype=np.int64).reshape(2, 3).T
    artifacts.write_arrays(tmp_path / "a.safetensors", "tokens", {"windows": array}, {})
    arrays, _ = artifacts.read_arrays(tmp_path / "a.safetensors", "tokens")
    assert arrays["windows"].tolist() == [[0, 3], [1, 4], [2, 5]]


@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_survives(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("records") / "x.jsonl"
    records = [{"output": text} for text in texts]
    artifacts.write_records(path, "generations", records)
    assert artifacts.read_records(path, "generations") == records
    assert path.read_bytes().count(b"\n") == len(texts)


@every_kind
def test_the_same_content_gives_the_same_bytes(example: Example, tmp_path: Path) -> None:
    example.write(tmp_path / "one" / example.name)
    example.write(tmp_path / "two" / example.name)
    assert (tmp_path / "one" / example.name).read_bytes() == (tmp_path / "two" / example.name).read_bytes()


def test_the_same_arrays_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    """safetensors writes several entries of metadata in a random order, which shows only sometimes."""
    written = set()
    for _ in range(20):
        EXAMPLES["activations"].write(tmp_path / "en.safetensors")
        written.add((tmp_path / "en.safetensors").read_bytes())
    assert len(written) == 1


# -- what other programs see -----------------------------------------------------------------------------------------


def test_pandas_reads_generations(tmp_path: Path) -> None:
    round_trip("generations", tmp_path)
    table = pd.read_json(tmp_path / "en.jsonl", lines=True, encoding="utf-8")
    assert table["output"].tolist() == OUTPUTS
    assert table["id"].tolist() == [record["id"] for record in RECORDS]
    assert table["output_tokens"].tolist() == list(range(1, len(OUTPUTS) + 1))


def test_pandas_reads_tables(tmp_path: Path) -> None:
    round_trip("neurons", tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "lape.parquet"), NEURONS, check_exact=True)


def test_safetensors_reads_tokens(tmp_path: Path) -> None:
    import safetensors.numpy

    round_trip("tokens", tmp_path)
    assert content(safetensors.numpy.load_file(tmp_path / "en.train.safetensors")["windows"]) == content(
        WINDOWS.windows
    )


@every_kind
def test_every_file_carries_its_kind_version_and_checksum(example: Example, tmp_path: Path) -> None:
    example.write(tmp_path / example.name)
    raw = (tmp_path / example.name).read_bytes()
    assert f"{example.kind}-{artifacts.VERSIONS[example.kind]}".encode() in raw
    assert b"sha256" in raw


# -- damaged files ---------------------------------------------------------------------------------------------------


def read_or_message(read: Read, path: Path) -> tuple[Any, str | None]:
    """What was read, or the message of the refusal; any other exception is a failure of the test."""
    try:
        return content(read(path)), None
    except ArtifactError as error:
        return None, str(error)


@every_kind
def test_a_flipped_bit_is_noticed_or_harmless(example: Example, tmp_path: Path) -> None:
    path = tmp_path / example.name
    example.write(path)
    good = path.read_bytes()
    expected = content(example.read(path))
    # To save time, only each n-th byte of the larger files; all eight bits in turn.
    step = {".parquet": 5, ".jsonl": 3}.get(path.suffix, 1)
    noticed = harmless = 0
    for position in range(0, len(good), step):
        bad = bytearray(good)
        bad[position] ^= 1 << (position // step % 8)
        path.write_bytes(bad)
        found, message = read_or_message(example.read, path)
        if message is None:
            assert found == expected, f"byte {position} changed the content silently"
            harmless += 1
        else:
            assert message.startswith(f"{path}: ")
            noticed += 1
    assert noticed > 0
    if path.suffix != ".parquet":  # which has statistics and paddings that nobody reads
        assert harmless <= 0.02 * len(good)


@every_kind
def test_a_truncated_file_is_refused(example: Example, tmp_path: Path) -> None:
    path = tmp_path / example.name
    example.write(path)
    good = path.read_bytes()
    lengths = range(0, len(good), 97 if path.suffix == ".parquet" else 7)
    for length in [*lengths, len(good) - 2]:
        path.write_bytes(good[:length])
        with pytest.raises(ArtifactError) as caught:
            example.read(path)
        assert str(path) in str(caught.value)
        assert "delete " in str(caught.value).lower()


@pytest.mark.parametrize("change", ["last", "first", "swapped", "twice"])
def test_json_lines_are_refused_unless_all_are_there_in_order(change: str, tmp_path: Path) -> None:
    path = tmp_path / "en.jsonl"
    artifacts.write_records(path, "generations", RECORDS)
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert len(lines) == len(RECORDS)
    changed = {
        "last": lines[:-1],
        "first": lines[1:],
        "swapped": [lines[1], lines[0], *lines[2:]],
        "twice": [*lines, lines[-1]],
    }
    path.write_text("\n".join(changed[change]) + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"en\.jsonl: .* \(its content does not match its checksum\)"):
        artifacts.read_records(path, "generations")


def test_lines_of_two_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "en.jsonl"
    artifacts.write_records(path, "generations", RECORDS[:1])
    one = path.read_text(encoding="utf-8")
    artifacts.write_records(path, "generations", RECORDS[1:])
    path.write_text(one + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="do not belong together"):
        artifacts.read_records(path, "generations")


@pytest.mark.parametrize("text", ["[]", "null", "5", '"text"', '[{"input": "Q", "output": "A"}]', "{}", ""])
@pytest.mark.parametrize("kind", ["generations", "effect"])
def test_json_of_other_programs_is_refused(kind: str, text: str, tmp_path: Path) -> None:
    """Published generations are a JSON array in a file named .jsonl."""
    path = tmp_path / EXAMPLES[kind].name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        EXAMPLES[kind].read(path)
    assert str(path) in str(caught.value)
    assert "delete " in str(caught.value).lower()


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    NEURONS.to_parquet(tmp_path / "lape.parquet")
    with pytest.raises(ArtifactError, match=r"lape\.parquet: has the format of another program.*reads neurons-"):
        artifacts.read_table(tmp_path / "lape.parquet", "neurons")


def test_a_changed_type_is_noticed(tmp_path: Path) -> None:
    """The numbers of a column alone do not tell int64 from a duration or text from bytes."""
    import pyarrow.parquet

    path = tmp_path / "lape.parquet"
    artifacts.write_table(path, "neurons", NEURONS)
    arrow = pyarrow.parquet.read_table(path)
    for name, type_ in (("layer", "uint64"), ("neuron", "duration[s]"), ("language", "large_binary")):
        index = arrow.column_names.index(name)
        cast = arrow.set_column(index, name, arrow[name].cast(type_))
        pyarrow.parquet.write_table(cast.replace_schema_metadata(arrow.schema.metadata), path)
        with pytest.raises(ArtifactError, match="does not match its checksum"):
            artifacts.read_table(path, "neurons")


def test_impossible_counts_are_refused_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "en.safetensors"
    counts = ActivationCounts(COUNTS.over_zero, COUNTS.activation_sum, np.full((2, 2), np.nan), COUNTS.tokens)
    artifacts.write_activations(path, counts, {})
    with pytest.raises(ArtifactError, match=r"en\.safetensors: 4 activations are NaN or infinite \(product_sum\)"):
        artifacts.read_activations(path)
    assert content(artifacts.read_activations_unchecked(path)) == content((counts, {}))  # for the audit


# -- other files -----------------------------------------------------------------------------------------------------


@every_kind
def test_another_version_is_refused(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / example.name
    version = artifacts.VERSIONS[example.kind]
    with monkeypatch.context() as patch:
        patch.setitem(artifacts.VERSIONS, example.kind, version + 1)
        example.write(path)
    with pytest.raises(ArtifactError) as caught:
        example.read(path)
    assert str(caught.value) == (
        f"{path}: has the format {example.kind}-{version + 1}, but this version of langneurons reads "
        f"{example.kind}-{version}. Delete the file and run again; Snakemake makes it anew."
    )


@pytest.mark.parametrize(
    ("written", "read"), [("tokens", "activations"), ("neurons", "intervention"), ("generations", "effect")]
)
def test_another_kind_is_refused(written: str, read: str, tmp_path: Path) -> None:
    path = tmp_path / EXAMPLES[written].name
    EXAMPLES[written].write(path)
    with pytest.raises(ArtifactError) as caught:
        EXAMPLES[read].read(path)
    assert str(path) in str(caught.value)


def test_the_message_on_another_kind_names_both(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    EXAMPLES["neurons"].write(path)
    with pytest.raises(ArtifactError, match=r"has the format neurons-\d+, but .* reads intervention-\d+"):
        artifacts.read_intervention(path)


@pytest.mark.parametrize("read", EXAMPLES, ids=EXAMPLES.keys())
@pytest.mark.parametrize("written", EXAMPLES, ids=EXAMPLES.keys())
def test_any_file_of_another_kind_gives_a_message_and_no_traceback(written: str, read: str, tmp_path: Path) -> None:
    if written == read:
        assert content(round_trip(written, tmp_path)) is not None
        return
    EXAMPLES[written].write(tmp_path / "file")
    with pytest.raises(ArtifactError, match="file"):
        EXAMPLES[read].read(tmp_path / "file")


@every_kind
def test_a_missing_file(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / example.name
    with pytest.raises(ArtifactError) as caught:
        example.read(path)
    message = f"{path}: the file does not exist. Ask snakemake for it: snakemake --cores all {path}"
    assert str(caught.value) == message
    assert not path.parent.exists()


@every_kind
def test_a_folder_in_place_of_the_file(example: Example, tmp_path: Path) -> None:
    (tmp_path / example.name).mkdir()
    with pytest.raises(ArtifactError, match=example.name):
        example.read(tmp_path / example.name)


# -- writes that fail ------------------------------------------------------------------------------------------------


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every writer leave half a file and then fail."""

    def fail(path: Path) -> None:
        with path.open("wb") as handle:
            handle.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", lambda arrays, path, header: fail(path))
    monkeypatch.setattr("pyarrow.parquet.write_table", lambda table, path, **options: fail(path))
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: fail(path))


@every_kind
def test_a_failing_write_leaves_nothing(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        with pytest.raises(WriteError, match=f"{example.name}: cannot be written .No space left"):
            example.write(tmp_path / "new" / example.name)
    assert list((tmp_path / "new").iterdir()) == []


@every_kind
def test_a_failing_write_keeps_the_old_content(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / example.name
    example.write(path)
    old = path.read_bytes()
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        with pytest.raises(WriteError, match=f"{example.name}: cannot be written .No space left"):
            example.write(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        artifacts.write_document(tmp_path / "x.json", "effect", {"value": object()})
    with pytest.raises(TypeError):
        artifacts.write_records(tmp_path / "x.jsonl", "generations", [{"output": "a"}, {"output": object()}])
    with pytest.raises(UnicodeEncodeError):  # half a surrogate pair is no text
        artifacts.write_records(tmp_path / "x.jsonl", "generations", [{"output": "\ud83d"}])
    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    artifacts.write_text(tmp_path / "x.txt", "ğ\nü\n")
    assert (tmp_path / "x.txt").read_bytes() == "ğ\nü\n".encode()


# -- all files of a results folder -----------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One file of each kind, where the workflow would write it, and files of other formats where they belong."""
    for example in EXAMPLES.values():
        example.write(tmp_path / "results" / "model" / example.kind / example.name)
    artifacts.write_records(tmp_path / "results" / "model" / "audit.json", "audit", RECORDS)
    others = ("model/model/config.json", "tables/x.json", "logs/a/x.json", "model/published/masks.json")
    others += ("formats.json", "model/tokens/.part.json", ".cache/x.json", "model/neurons/lape.csv")
    for name in others:
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of another program")
    return tmp_path / "results"


def test_all_files_of_a_folder_are_checked_and_no_others(results: Path) -> None:
    names = {str(path.relative_to(results / "model")) for path in artifacts.find_artifacts(results)}
    assert names == {f"{example.kind}/{example.name}" for example in EXAMPLES.values()} | {"audit.json"}
    assert artifacts.verify_all(results) == (len(EXAMPLES) + 1, {})
    assert artifacts.verify_all(results / "nowhere") == (0, {})


@every_kind
def test_a_flipped_bit_is_found_by_the_checksum(example: Example, results: Path) -> None:
    """Of a hundred places, one bit each: found, or harmless as when the file is read by its job."""
    path = results / "model" / example.kind / example.name
    good = path.read_bytes()
    expected = content(example.read(path))
    found = 0
    for position in range(0, len(good), max(1, len(good) // 100)):
        bad = bytearray(good)
        bad[position] ^= 4
        path.write_bytes(bad)
        _, faults = artifacts.verify_all(path.parents[1])
        found += len(faults)
        assert all(fault.reason for fault in faults.values())
        assert faults or content(example.read(path)) == expected
    assert found > 0


@every_kind
def test_a_cut_file_is_found(example: Example, results: Path) -> None:
    path = results / "model" / example.kind / example.name
    good = path.read_bytes()
    for length in (0, 1, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:length])
        _, faults = artifacts.verify_all(results)
        assert list(faults) == [path]
        assert (
            "is damaged, or no file of this workflow (" in faults[path].reason
            or "another program" in faults[path].reason
        )


@every_kind
def test_files_of_another_version_are_found(example: Example, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = artifacts.VERSIONS[example.kind]
    monkeypatch.setitem(artifacts.VERSIONS, example.kind, version + 1)
    _, faults = artifacts.verify_all(results)
    assert {path: fault.reason for path, fault in faults.items()} == {
        results
        / "model"
        / example.kind
        / example.name: f"has the format {example.kind}-{version}, but this version of "
        f"langneurons reads {example.kind}-{version + 1}"
    }
    monkeypatch.delitem(artifacts.VERSIONS, example.kind)
    _, faults = artifacts.verify_all(results)
    assert [fault.reason for fault in faults.values()] == [
        f"has the format {example.kind}, which this version of langneurons does not know"
    ]
