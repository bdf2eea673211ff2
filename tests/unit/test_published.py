"""Files of other projects: exact round trips, one message for every mistake, and nothing in them is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langneurons import __version__, artifacts
from langneurons.errors import UserError
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.lape import select
from langneurons.published.activations import check_shape, read_activations, write_activations
from langneurons.published.files import INTEGERS, PublishedError, check_sha256, file_sha256
from langneurons.published.generations import read_generations, write_generations
from langneurons.published.masks import Masks, read_masks, write_masks
from scripts import export_published, import_activations, import_generations, import_neurons

REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
ROOT = Path(__file__).parents[2]

OVER_ZERO = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32)
EMPTY = torch.tensor([], dtype=torch.int64)
MASK = [[torch.tensor([2, 0]), EMPTY, torch.tensor([5])], [EMPTY, torch.tensor([1]), EMPTY]]


def refusal(read: Callable[..., Any], path: Path, *arguments: Any) -> str:
    """The message of a refused file: one line that opens with the file's path."""
    with pytest.raises(PublishedError) as caught:
        read(path, *arguments)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "Traceback" not in message
    return message.removeprefix(f"{path}: ")


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def same(first: Any, second: Any) -> bool:
    """Equal in structure, types, values and order."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(same(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    return type(first) is type(second) and first == second


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys; import langneurons.published.masks; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


# -- activations ------------------------------------------------------------------------------------------------------


def test_activations(tmp_path: Path) -> None:
    counts = read_activations(saved(tmp_path / "a", {"n": 5, "over_zero": OVER_ZERO}))
    assert counts.over_zero.dtype == np.int64
    assert counts.over_zero.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (type(counts.tokens), counts.tokens) == (int, 5)
    assert counts.activation_sum is None
    assert counts.product_sum is None
    counts.check()


@pytest.mark.parametrize("tokens", [torch.tensor(5), torch.tensor(5, dtype=torch.int32), 2**40])
def test_number_of_tokens_may_be_a_tensor_and_large(tokens: Any, tmp_path: Path) -> None:
    counts = read_activations(saved(tmp_path / "a", {"n": tokens, "over_zero": OVER_ZERO}))
    assert (type(counts.tokens), counts.tokens) == (int, int(tokens))


@pytest.mark.parametrize("name", INTEGERS)
def test_any_integer_type_of_counts(name: str, tmp_path: Path) -> None:
    tensor = OVER_ZERO.to(getattr(torch, name))
    counts = read_activations(saved(tmp_path / "a", {"n": 5, "over_zero": tensor}))
    assert counts.over_zero.dtype == np.int64
    assert counts.over_zero.tolist() == OVER_ZERO.tolist()


def test_counts_of_a_view_and_further_keys(tmp_path: Path) -> None:
    content = {"over_zero": OVER_ZERO.T[1:], "n": 5, "model": "llama", "average": torch.zeros(2)}
    assert read_activations(saved(tmp_path / "a", content)).over_zero.tolist() == [[1, 4], [2, 5]]


def test_files_of_old_torch_versions(tmp_path: Path) -> None:
    content = {"n": 5, "over_zero": OVER_ZERO}
    path = saved(tmp_path / "a", content, _use_new_zipfile_serialization=False)
    assert read_activations(path).over_zero.tolist() == OVER_ZERO.tolist()


@pytest.mark.parametrize("names", [("n",), ("total_tokens",), ("n", "total_tokens")])
def test_the_number_of_tokens_by_either_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    """The second comes with counts in int64."""
    content = {name: torch.tensor(7) for name in names} | {"over_zero": OVER_ZERO.long()}
    counts = read_activations(saved(tmp_path / "activation.de", content))
    assert (counts.tokens, counts.over_zero.tolist()) == (7, OVER_ZERO.tolist())


def test_activations_are_written_as_published(tmp_path: Path) -> None:
    over_zero = np.array([[0, 2**31 - 1], [7, 1]], dtype=np.int64)
    counts = ActivationCounts(over_zero, np.ones((2, 2)), np.ones((2, 2)), 2**40)
    write_activations(tmp_path / "new" / "a", counts)
    expected = {"n": 2**40, "over_zero": torch.tensor(over_zero, dtype=torch.int32)}
    assert same(load(tmp_path / "new" / "a"), expected)
    again = read_activations(tmp_path / "new" / "a")
    assert (again.over_zero.tolist(), again.tokens) == (over_zero.tolist(), 2**40)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_the_same_content_gives_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    """torch writes the name of the file into it, which is temporary while a file is written atomically."""
    masks = Masks(pd.DataFrame({"language": ["en"], "layer": [0], "neuron": [3]}), ["en"], 2)
    for name in ("a", "b"):
        write_masks(tmp_path / name, masks)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_counts_beyond_the_published_type_are_refused(tmp_path: Path) -> None:
    counts = ActivationCounts(np.array([[2**31, 1], [2**32, 0]]), None, None, 2**40)
    message = refusal(write_activations, tmp_path / "a", counts)
    assert message == (
        "2 counts do not fit the int32 of the published format; the largest is 4294967296, the limit 2147483647. "
        "Record on fewer tokens."
    )
    assert list(tmp_path.iterdir()) == []


def test_impossible_counts_are_not_written(tmp_path: Path) -> None:
    counts = ActivationCounts(np.array([[3]]), None, None, 2)
    assert "1 counts are above the 2 tokens" in refusal(write_activations, tmp_path / "a", counts)


NOT_ACTIVATIONS: dict[str, tuple[Any, list[str]]] = {
    "a list": ([5, OVER_ZERO], ["a list", "mapping", 'torch.save({"n"']),
    "a tensor": (OVER_ZERO, ["a Tensor", "mapping"]),
    "nothing": (None, ["nothing", "mapping"]),
    "no n": ({"over_zero": OVER_ZERO, "tokens": 5}, ["lacks n or total_tokens;", "over_zero, tokens"]),
    "no over_zero": ({"n": 5, 7: 1}, ["lacks over_zero;", "n, 7"]),
    "neither": ({}, ["lacks n or total_tokens and over_zero;", "keys found are none"]),
    "1 dimension": ({"n": 5, "over_zero": OVER_ZERO[0]}, ["over_zero has the shape [3]", "[layer, neuron]"]),
    "3 dimensions": ({"n": 5, "over_zero": OVER_ZERO[None]}, ["shape [1, 2, 3]"]),
    "no layers": ({"n": 5, "over_zero": OVER_ZERO[:0]}, ["shape [0, 3]", "at least one"]),
    "a list of counts": ({"n": 5, "over_zero": OVER_ZERO.tolist()}, ["over_zero is a list", "tensor of integers"]),
    "float": ({"n": 5, "over_zero": OVER_ZERO.double()}, ["over_zero is a tensor of float64"]),
    "bfloat16": ({"n": 5, "over_zero": OVER_ZERO.bfloat16()}, ["over_zero is a tensor of bfloat16"]),
    "bool": ({"n": 5, "over_zero": OVER_ZERO > 1}, ["over_zero is a tensor of bool"]),
    "sparse": ({"n": 5, "over_zero": OVER_ZERO.to_sparse()}, ["over_zero is no dense tensor", "Sparse"]),
    "no values": ({"n": 5, "over_zero": OVER_ZERO.to("meta")}, ["over_zero is no dense tensor", "meta"]),
    "n 0": ({"n": 0, "over_zero": OVER_ZERO}, ["n is 0", "number of tokens"]),
    "n negative": ({"n": torch.tensor(-3), "over_zero": OVER_ZERO}, ["n is -3"]),
    "n huge": ({"n": 2**63, "over_zero": OVER_ZERO}, [f"n is {2**63}", "int64"]),
    "n float": ({"n": 5.0, "over_zero": OVER_ZERO}, ["n is float (5.0)"]),
    "n float tensor": ({"n": torch.tensor(5.0), "over_zero": OVER_ZERO}, ["n is a tensor of float32"]),
    "n bool": ({"n": True, "over_zero": OVER_ZERO}, ["n is bool (True)"]),
    "n text": ({"n": "5", "over_zero": OVER_ZERO}, ["n is a str"]),
    "n vector": ({"n": torch.tensor([5, 5]), "over_zero": OVER_ZERO}, ["n has the shape [2]"]),
    "two numbers": ({"n": 5, "total_tokens": 6, "over_zero": OVER_ZERO}, ["n is 5, but total_tokens is 6"]),
    "total_tokens 0": ({"total_tokens": 0, "over_zero": OVER_ZERO}, ["total_tokens is 0", "number of tokens"]),
    "counts above n": ({"n": 3, "over_zero": OVER_ZERO}, ["2 counts are above the 3 tokens", "the largest is 5"]),
    "unsigned counts above n": (
        {"n": 9, "over_zero": torch.tensor([[2**63]], dtype=torch.uint64)},
        ["1 counts are above the 9 tokens", f"the largest is {2**63}"],
    ),
    "negative counts": ({"n": 5, "over_zero": OVER_ZERO - 2}, ["2 counts are negative", "the lowest is -2"]),
}


@pytest.mark.parametrize("name", NOT_ACTIVATIONS)
def test_activations_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    content, parts = NOT_ACTIVATIONS[name]
    message = refusal(read_activations, saved(tmp_path / "activation.de", content))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(("layers", "neurons"), [(None, None), (2, None), (None, 3), (2, 3)])
def test_shape_of_the_model(layers: int | None, neurons: int | None) -> None:
    check_shape("a", (2, 3), layers, neurons)


@pytest.mark.parametrize(
    ("layers", "neurons", "expected"), [(4, None, "4 layers of 3"), (None, 4, "2 layers of 4"), (3, 2, "3 layers of 2")]
)
def test_shape_of_another_model(layers: int | None, neurons: int | None, expected: str, tmp_path: Path) -> None:
    message = refusal(check_shape, tmp_path / "a", (2, 3), layers, neurons)
    assert message.startswith(f"has 2 layers of 3 neurons, but {expected} neurons are expected.")


# -- files of torch that are none, or are more ------------------------------------------------------------------------

READERS: dict[str, Callable[[Path], Any]] = {
    "activations": read_activations,
    "masks": lambda path: read_masks(path, ["en", "de"]),
}
each_reader = pytest.mark.parametrize("reader", READERS)


class Bait:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


SAVES: dict[str, Callable[[Any, Path], Any]] = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
}


@each_reader
@pytest.mark.parametrize("form", SAVES)
def test_a_file_that_runs_code_is_refused_and_does_not_run(reader: str, form: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "evil"
    content = {"activations": {"n": 5, "over_zero": Bait(mark)}, "masks": [[Bait(mark)], [EMPTY]]}[reader]
    SAVES[form](content, path)
    message = refusal(READERS[reader], path)
    assert not mark.exists()
    assert message.replace("_io", "io").startswith(
        "holds more than tensors and plain containers (it wants io.open), which could run code when loaded, and so is "
        "refused."
    )
    assert "weights_only" not in message  # torch's own message explains how to run it nevertheless
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists()  # so it would have run


@each_reader
def test_what_is_refused_is_named(reader: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a", {"n": np.int64(5), "over_zero": OVER_ZERO})
    assert "multiarray.scalar), which could run code" in refusal(READERS[reader], path)
    path = saved(tmp_path / "b", torch.nn.Linear(1, 1))
    assert "(it wants torch.nn.modules.linear.Linear)" in refusal(READERS[reader], path)


@each_reader
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_program_of_torch_is_refused(reader: str, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "a")
    assert "more than tensors and plain containers, which" in refusal(READERS[reader], tmp_path / "a")


OTHER_FILES = {
    "empty": b"",
    "text": b"hello world\n",
    "json": b'[{"input": "Q", "output": "A"}]\n',
    "pickle": pickle.dumps({"n": 5}),
    "zip": b"PK\x05\x06" + bytes(18),
    "binary": bytes(range(256)),
}


@each_reader
@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.filterwarnings("error")
def test_no_file_of_torch(reader: str, name: str, tmp_path: Path) -> None:
    message = refusal(READERS[reader], written(tmp_path / "a", OTHER_FILES[name]))
    assert message.startswith("is no file of torch.save, or is truncated or damaged (")
    assert "torch.save(" in message
    assert "weights_only" not in message


@each_reader
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated_at_any_place(reader: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    SAVES[form]({"activations": {"n": 5, "over_zero": OVER_ZERO}, "masks": MASK}[reader], path)
    whole = path.read_bytes()
    READERS[reader](path)
    for length in range(0, len(whole), 5):
        message = refusal(READERS[reader], written(path, whole[:length]))
        damaged = message.startswith("is no file of torch.save, or is truncated or damaged (")
        assert damaged or (form == "legacy" and "it wants" in message), length  # cut within a name, it is another name


@each_reader
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_altered_bytes_give_a_message_or_values_never_another_error(reader: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    SAVES[form]({"activations": {"n": 5, "over_zero": OVER_ZERO}, "masks": MASK}[reader], path)
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        altered = bytearray(whole)
        altered[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        message = ""
        try:
            READERS[reader](written(path, bytes(altered)))
        except PublishedError as error:
            message = str(error)
            refused += 1
        assert not message or message.startswith(f"{path}: ")
    assert 0 < refused < 300  # bytes of padding do not matter


@pytest.mark.parametrize(
    "read",
    [*READERS.values(), lambda path: read_generations(path, "de"), file_sha256],
    ids=[*READERS, "generations", "sha256"],
)
def test_missing_files_and_folders(read: Callable[[Path], Any], tmp_path: Path) -> None:
    assert refusal(read, tmp_path / "nowhere" / "a") == "the file does not exist. Correct the path."
    assert refusal(read, tmp_path) == "the file cannot be read (Is a directory). Correct the path."


# -- masks ------------------------------------------------------------------------------------------------------------


def rows(table: pd.DataFrame) -> list[tuple[str, int, int]]:
    return list(table[["language", "layer", "neuron"]].itertuples(index=False, name=None))


def test_masks(tmp_path: Path) -> None:
    masks = read_masks(saved(tmp_path / "m", MASK), ["zh", "en"], layers=3, neurons=6)
    assert rows(masks.table) == [("zh", 0, 2), ("zh", 0, 0), ("zh", 2, 5), ("en", 1, 1)]
    assert list(masks.table.columns) == ["language", "layer", "neuron"]
    assert [str(dtype) for dtype in masks.table.dtypes] == ["str", "int64", "int64"]
    assert (masks.languages, masks.layers) == (["zh", "en"], 3)
    assert masks.count_by_language() == {"zh": 3, "en": 1}
    assert masks.distinct() == 4


def test_a_neuron_of_two_languages_is_counted_once(tmp_path: Path) -> None:
    one = [torch.tensor([4])]
    masks = read_masks(saved(tmp_path / "m", [one, one]), ["en", "de"])
    assert masks.count_by_language() == {"en": 1, "de": 1}
    assert masks.distinct() == 1


def test_masks_without_neurons(tmp_path: Path) -> None:
    masks = read_masks(saved(tmp_path / "m", [[EMPTY, EMPTY], [EMPTY, EMPTY]]), ["en", "de"])
    assert [str(dtype) for dtype in masks.table.dtypes] == ["str", "int64", "int64"]
    assert masks.count_by_language() == {"en": 0, "de": 0}
    assert (len(masks.table), masks.distinct(), masks.layers) == (0, 0, 2)
    write_masks(tmp_path / "again", masks)
    assert same(load(tmp_path / "again"), load(tmp_path / "m"))


@pytest.mark.parametrize("name", INTEGERS)
def test_any_integer_type_of_indices(name: str, tmp_path: Path) -> None:
    tensor = torch.tensor([7, 3]).to(getattr(torch, name))
    masks = read_masks(saved(tmp_path / "m", ((tensor,),)), ["en"])
    assert rows(masks.table) == [("en", 0, 7), ("en", 0, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_an_empty_layer_may_be_of_any_type(dtype: torch.dtype, tmp_path: Path) -> None:
    masks = read_masks(saved(tmp_path / "m", [[torch.tensor([], dtype=dtype), torch.tensor([1])]]), ["en"])
    assert rows(masks.table) == [("en", 1, 1)]
    write_masks(tmp_path / "again", masks)
    assert same(load(tmp_path / "again"), [[EMPTY, torch.tensor([1])]])


layers_of_neurons = st.lists(
    st.lists(st.integers(0, 2**62), unique=True, max_size=4).map(
        lambda values: torch.tensor(values, dtype=torch.int64)
    ),
    min_size=3,
    max_size=3,
)


@given(mask=st.lists(layers_of_neurons, min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_round_trip_exactly(mask: list[list[torch.Tensor]], tmp_path: Path) -> None:
    languages = [f"l{number}" for number in range(len(mask))]
    masks = read_masks(saved(tmp_path / "m", mask), languages)
    write_masks(tmp_path / "again", masks)
    assert same(load(tmp_path / "again"), mask)
    again = read_masks(tmp_path / "again", languages)
    pd.testing.assert_frame_equal(again.table, masks.table, check_exact=True)


NOT_MASKS: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "a mapping": ({"en": []}, {}, ["a dict", "a mask is a list"]),
    "a tensor": (torch.zeros(2, 3), {}, ["a Tensor", "a mask is a list"]),
    "too few languages": (
        MASK[:1],
        {},
        ["of 1 languages, but 'masks.languages' names 2 (zh, en)", "Correct 'masks.languages'"],
    ),
    "too many languages": ([*MASK, MASK[0]], {}, ["of 3 languages, but 'masks.languages' names 2 (zh, en)"]),
    "no languages": ([], {"languages": []}, ["of 0 languages", "names 0 (none)"]),
    "a language twice": (MASK, {"languages": ["en", "en"]}, ["names en more than once"]),
    "languages of tensors": ([MASK[0], EMPTY], {}, ["language 'en' is a Tensor", "a list over layers"]),
    "uneven layers": ([MASK[0], MASK[1][:2]], {}, ["zh 3, en 2", "the same number"]),
    "no layers": ([[], []], {}, ["zh 0, en 0", "at least 1"]),
    "layers of another model": (MASK, {"layers": 4}, ["has 3 layers, but 4 are expected"]),
    "indices in a list": ([[[1, 2]], [EMPTY]], {}, ["language 'zh', layer 0 is a list"]),
    "no dimension": ([[EMPTY], [torch.tensor(3)]], {}, ["language 'en', layer 0", "shape []", "1-dimensional"]),
    "2 dimensions": ([[EMPTY], [torch.tensor([[3]])]], {}, ["language 'en', layer 0", "shape [1, 1]"]),
    "empty in 2 dimensions": ([[EMPTY], [torch.zeros(0, 2)]], {}, ["shape [0, 2]"]),
    "float": ([[EMPTY], [torch.tensor([3.0])]], {}, ["language 'en', layer 0 is a tensor of float32"]),
    "bool": (
        [[EMPTY], [torch.tensor([True, False])]],
        {},
        ["language 'en', layer 0 is a tensor of bool", "mask.nonzero().flatten()"],
    ),
    "negative": (
        [[EMPTY], [torch.tensor([3, -1])]],
        {},
        ["language 'en', layer 0", "index -1 is outside the allowed range (from 0)"],
    ),
    "too large": (MASK, {"neurons": 5}, ["language 'zh', layer 2", "index 5 is outside the allowed range (0 to 4)"]),
    "negative in a model": (
        [[EMPTY], [torch.tensor([-7])]],
        {"neurons": 5},
        ["index -7 is outside the allowed range (0 to 4)"],
    ),
    "no int64": ([[EMPTY], [torch.tensor([2**63], dtype=torch.uint64)]], {}, [f"index {2**63} is outside"]),
    "twice": (
        [[EMPTY, torch.tensor([5, 1, 5, 2, 1])], [EMPTY, EMPTY]],
        {},
        ["language 'zh', layer 1: neurons listed more than once: 1, 5."],
    ),
}


@pytest.mark.parametrize("name", NOT_MASKS)
def test_masks_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    content, options, parts = NOT_MASKS[name]
    options = {"languages": ["zh", "en"]} | options
    message = refusal(lambda path: read_masks(path, **options), saved(tmp_path / "mask", content))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("row", [("tr", 0, 1), ("en", 2, 1), ("en", -1, 1), ("en", 0, -1)])
def test_a_mask_has_no_place_for_other_neurons(row: tuple[str, int, int], tmp_path: Path) -> None:
    table = pd.DataFrame([("de", 1, 4), row], columns=["language", "layer", "neuron"])
    message = refusal(write_masks, tmp_path / "m", Masks(table, ["en", "de"], 2))
    assert f"language '{row[0]}', layer {row[1]}, neuron {row[2]} in a mask of the languages en, de and 2" in message
    assert list(tmp_path.iterdir()) == []


# -- generations ------------------------------------------------------------------------------------------------------

HARD = [
    "",
    "  leading and trailing \n\n",
    "Iğdır'ın ılık şöleni ıiIİ",
    "line\u2028separator\u2029paragraph\u0085next\x0b\x0c\x1c",
    'two\nlines\r\nand\ta tab, "quotes" and \\n',
    "\x00\x1b\x7f\ufeff\ufffd",
    "👩‍👩‍👧 🏳️‍🌈",
    "[",
]
ENTRIES = [{"input": f"Q: {text}\nA:", "output": text} for text in HARD]


def plain(entries: list[dict[str, Any]], language: str = "de") -> list[dict[str, Any]]:
    """The records that plain entries of input and output become."""
    nothing = {"split": None, "output_tokens": None, "finish_reason": None}
    return [{"id": f"{language}-{number}", **entry, **nothing} for number, entry in enumerate(entries, 1)]


FORMS: dict[str, Callable[[Any], str]] = {
    "array": json.dumps,
    "indented array": lambda entries: json.dumps(entries, indent=4, ensure_ascii=False),
    "lines": lambda entries: "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries),
    "lines without end": lambda entries: "\n".join(json.dumps(entry) for entry in entries),
    "lines of Windows": lambda entries: "\r\n".join(json.dumps(entry) for entry in entries) + "\r\n\r\n",
    "byte order mark": lambda entries: "\ufeff" + json.dumps(entries, ensure_ascii=False),
    "lines with a mark": lambda entries: "\ufeff" + "\n\n".join(json.dumps(entry) for entry in entries),
    "white space first": lambda entries: "\n \t" + json.dumps(entries),
}


@pytest.mark.parametrize("form", FORMS)
def test_generations(form: str, tmp_path: Path) -> None:
    path = written(tmp_path / "de.jsonl", FORMS[form](ENTRIES))
    records = read_generations(path, "de")
    assert records == plain(ENTRIES)
    assert list(records[0]) == ["id", "split", "input", "output", "output_tokens", "finish_reason"]


@pytest.mark.parametrize("form", ["array", "lines"])
def test_one_entry(form: str, tmp_path: Path) -> None:
    path = written(tmp_path / "de.jsonl", FORMS[form](ENTRIES[:1]))
    assert read_generations(path, "tr") == plain(ENTRIES[:1], "tr")


def test_what_entries_say_of_themselves(tmp_path: Path) -> None:
    entries = [
        {"id": "a", "split": "test", "output_tokens": 12, "finish_reason": "stop", "model": "x", **ENTRIES[0]},
        {"id": "b", "split": 3, "output_tokens": "12", "finish_reason": None, **ENTRIES[1]},
        {"id": "c", "output_tokens": True, **ENTRIES[2]},
    ]
    records = read_generations(written(tmp_path / "x", json.dumps(entries)), "de")
    assert [record["id"] for record in records] == ["a", "b", "c"]
    assert [record["split"] for record in records] == ["test", None, None]
    assert [record["output_tokens"] for record in records] == [12, None, None]
    assert [record["finish_reason"] for record in records] == ["stop", None, None]


@pytest.mark.parametrize("second", [{}, {"id": 2}, {"id": None}])
def test_ids_of_some_entries_are_not_taken(second: dict[str, Any], tmp_path: Path) -> None:
    entries = [{"id": "a", **ENTRIES[0]}, {**second, **ENTRIES[1]}]
    records = read_generations(written(tmp_path / "x", json.dumps(entries)), "de")
    assert [record["id"] for record in records] == ["de-1", "de-2"]


def test_our_own_artefact_can_be_read(tmp_path: Path) -> None:
    records = [
        {**record, "id": f"de-{number:03d}", "split": "test", "output_tokens": number, "finish_reason": "length"}
        for number, record in enumerate(plain(ENTRIES), 1)
    ]
    artifacts.write_records(tmp_path / "de.jsonl", "generations", records)
    assert read_generations(tmp_path / "de.jsonl", "de") == records


texts = st.fixed_dictionaries({"input": st.text(), "output": st.text()})


@given(entries=st.lists(texts, min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_generations_round_trip_exactly(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "de.jsonl"
    write_generations(path, plain(entries))
    assert json.loads(path.read_text(encoding="utf-8")) == entries
    assert read_generations(path, "de") == plain(entries)


def test_generations_are_written_as_published(tmp_path: Path) -> None:
    write_generations(tmp_path / "x", plain([{"input": "Nasıl?", "output": "İyi."}]))
    expected = '[\n    {\n        "input": "Nasıl?",\n        "output": "İyi."\n    }\n]\n'
    assert (tmp_path / "x").read_bytes() == expected.encode()


NOT_GENERATIONS: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["holds no entries"]),
    "white space": (" \n\n", ["holds no entries"]),
    "mark alone": ("\ufeff", ["holds no entries"]),
    "empty array": ("[]\n", ["holds no entries"]),
    "not UTF-8": (b'[{"input": "a", "output": "\xfc"}]', ["is not UTF-8 (byte 27)"]),
    "UTF-16": ('[{"input": "a"}]'.encode("utf-16"), ["is not UTF-8 (byte 0)"]),
    "text": ("hello\n", ["line 1 is not JSON (Expecting value)", "one JSON object per line"]),
    "cut array": ('[\n{"input": "a", "output": "b"},\n{"input": "a", "out', ["line 3 is not JSON (Unterminated"]),
    "cut lines": ('{"input": "a", "output": "b"}\n\n{"input": "a"', ["line 3 is not JSON (Expecting ',' delim"]),
    "after the array": ('[{"input": "a", "output": "b"}]\n[]', ["line 2 is not JSON (Extra data)"]),
    "deep": ("[" * 100_000, ["cannot be read as JSON from line 1", "recursion"]),
    "digits": ("1" * 5000, ["cannot be read as JSON from line 1"]),
    "entry is a list": ('[{"input": "a", "output": "b"}, [1]]', ["entry 2 is a list", "an object"]),
    "line is a number": ('{"input": "a", "output": "b"}\n7\n', ["entry 2 is int (7)", "an object"]),
    "entry is null": ("[null]", ["entry 1 is nothing (null)"]),
    "no output": ('[{"input": "a", "response": "b"}]', ["entry 1 has no 'output'; its keys are input, response."]),
    "no input": ('{"input": "a", "output": "b"}\n{"output": "b"}', ["entry 2 has no 'input'; its keys are output."]),
    "no keys": ("[{}]", ["entry 1 has no 'input'; its keys are none."]),
    "wrapped": ('{"data": [{"input": "a", "output": "b"}]}', ["entry 1 has no 'input'; its keys are data."]),
    "output is a list": ('[{"input": "a", "output": ["b"]}]', ["entry 1: 'output' is a list", "must be text"]),
    "output is null": ('[{"input": "a", "output": null}]', ["entry 1: 'output' is nothing (null)"]),
    "input is a number": ('[{"input": 1.5, "output": "b"}]', ["entry 1: 'input' is float (1.5)"]),
    "half a character": (r'[{"input": "a", "output": "b\ud83d"}]', ["entry 1: 'output' holds half of a surrogate"]),
    "half of an id": (r'[{"id": "\udc00", "input": "a", "output": "b"}]', ["entry 1: 'id' holds half"]),
    "ids twice": (
        "".join(json.dumps({"id": name, "input": "a", "output": "b"}) + "\n" for name in "xyxzz"),
        ["ids used by more than one entry: x, z."],
    ),
}


@pytest.mark.parametrize("name", NOT_GENERATIONS)
def test_generations_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    content, parts = NOT_GENERATIONS[name]
    message = refusal(read_generations, written(tmp_path / "de.jsonl", content), "de")
    assert all(part in message for part in parts), message


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    path = written(tmp_path / "x", r'[{"input": "a", "output": "\ud83d\ude00"}]')
    assert read_generations(path, "de")[0]["output"] == "😀"


# -- scripts ----------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def call(script: Any, *arguments: object) -> None:
    script.main([str(argument) for argument in arguments])


def test_import_activations(tmp_path: Path) -> None:
    path = saved(tmp_path / "activation.de", {"n": 5, "over_zero": OVER_ZERO})
    output = tmp_path / "m" / "de.safetensors"
    shape = ("--layers", 2, "--neurons", 3)
    call(import_activations, "--inputs", path, "--languages", "de", *shape, "--outputs", output)
    counts, metadata = artifacts.read_activations(output)
    assert (counts.over_zero.tolist(), counts.tokens) == (OVER_ZERO.tolist(), 5)
    assert metadata == {
        "language": "de",
        "source": "published",
        "file": "activation.de",
        "file_sha256": sha256(path),
        "langneurons": __version__,
    }
    call(export_published, "--activations", output, "--output", tmp_path / "again")
    assert same(load(tmp_path / "again"), load(path))


def test_import_activations_of_another_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "activation.de", {"n": 5, "over_zero": OVER_ZERO})
    with pytest.raises(PublishedError, match=r"activation\.de: has 2 layers of 3 neurons, but 32 layers of 3"):
        call(import_activations, "--inputs", path, "--languages", "de", "--layers", 32, "--outputs", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_import_activations_writes_all_or_nothing(tmp_path: Path) -> None:
    """The second file is of another model; the first is not written either."""
    first = saved(tmp_path / "activation.de", {"n": 5, "over_zero": OVER_ZERO})
    second = saved(tmp_path / "activation.en", {"n": 5, "over_zero": OVER_ZERO[:1]})
    outputs = ("--outputs", tmp_path / "o" / "de", tmp_path / "o" / "en")
    with pytest.raises(PublishedError, match=r"activation\.en: has 1 layers"):
        call(import_activations, "--inputs", first, second, "--languages", "de", "en", "--layers", 2, *outputs)
    assert not (tmp_path / "o").exists()
    with pytest.raises(UserError, match="1 inputs, 2 languages and 2 outputs"):
        call(import_activations, "--inputs", first, "--languages", "de", "en", *outputs)


def test_a_folder_as_target_ends_with_one_message(tmp_path: Path) -> None:
    table = pd.DataFrame({"language": ["en"], "layer": [0], "neuron": [1], "entropy": [0.0], "probability": [0.5]})
    artifacts.write_table(tmp_path / "n.parquet", "neurons", table, {"layers": 1})
    arguments = ["--neurons", str(tmp_path / "n.parquet"), "--output", str(tmp_path / "folder")]
    (tmp_path / "folder").mkdir()
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / "export_published.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'folder'}: cannot be written (Is a directory).")


def test_checksums(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask", MASK)
    check_sha256(path, "")
    check_sha256(path, sha256(path).upper())
    wrong = "0" * 64
    message = refusal(check_sha256, path, wrong)
    assert sha256(path) in message
    assert wrong in message
    assert "'sha256' in the config" in message


def test_imports_verify_checksums(tmp_path: Path) -> None:
    wrong, output = "0" * 64, tmp_path / "out.parquet"
    recording = saved(tmp_path / "recording", {"n": 5, "over_zero": OVER_ZERO})
    mask, answers = saved(tmp_path / "mask", MASK), written(tmp_path / "answers", json.dumps(ENTRIES))
    with pytest.raises(PublishedError, match=f"recording: has the sha256 .* but {wrong} is expected"):
        call(import_activations, "--inputs", recording, "--languages", "de", "--outputs", output,
             "--sha256", json.dumps({"de": wrong}))  # fmt: skip
    with pytest.raises(PublishedError, match=f"mask: has the sha256 .* but {wrong} is expected"):
        import_mask(mask, output, "--sha256", wrong)
    with pytest.raises(PublishedError, match=f"answers: has the sha256 .* but {wrong} is expected"):
        call(import_generations, "--perturbations", "none", "--languages", "de", "--inputs", answers,
             "--outputs", output, "--sha256", json.dumps([wrong]))  # fmt: skip
    assert not output.exists()


def test_mask_is_checked_against_the_recordings(tmp_path: Path) -> None:
    """A model of 3 layers of 6 neurons, whose size is known from a recording alone."""
    recording = tmp_path / "de.safetensors"
    artifacts.write_activations(recording, ActivationCounts(np.zeros((3, 6), np.int64), None, None, 1), {})
    output = tmp_path / "published.parquet"
    import_mask(saved(tmp_path / "mask", MASK), output, "--recordings", recording)
    assert artifacts.read_table(output, "neurons")[1]["neurons_per_layer"] == 6
    small = tmp_path / "small.safetensors"
    artifacts.write_activations(small, ActivationCounts(np.zeros((3, 5), np.int64), None, None, 1), {})
    with pytest.raises(PublishedError, match=r"mask: language 'zh', layer 2: the index 5 is outside .* \(0 to 4\)"):
        import_mask(tmp_path / "mask", output, "--recordings", small)
    with pytest.raises(PublishedError, match=r"small\.safetensors: has 3 layers of 5 neurons, but 3 layers of 6"):
        import_mask(tmp_path / "mask", output, "--recordings", small, "--neurons", 6)


def test_a_view_that_repeats_its_values_is_refused(tmp_path: Path) -> None:
    """A kilobyte that would become a terabyte."""
    path = saved(tmp_path / "a", {"n": 5, "over_zero": torch.zeros(1, dtype=torch.int32).expand(10**6, 10**6)})
    assert "over_zero claims 1,000,000,000,000 values" in refusal(read_activations, path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\n<!DOCTYPE html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of git-lfs"),
    ],
)
def test_what_a_wrong_address_gives(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    message = refusal(read_activations, tmp_path / "m")
    assert message.startswith(f"is {what}, not the file itself. Get the file's own address")
    assert "delete it here and run again" in message


def test_recordings_of_two_models(tmp_path: Path) -> None:
    """Without the model's size, the first recording tells it."""
    first = saved(tmp_path / "activation.de", {"n": 5, "over_zero": OVER_ZERO})
    second = saved(tmp_path / "activation.en", {"n": 5, "over_zero": OVER_ZERO[:1]})
    outputs = ("--outputs", tmp_path / "o" / "de", tmp_path / "o" / "en")
    with pytest.raises(UserError, match=r"activation\.en: has the shape .*\[1, 3\], but .*activation\.de has \[2, 3\]"):
        call(import_activations, "--inputs", first, second, "--languages", "de", "en", *outputs)


def import_mask(path: Path, output: Path, *more: object) -> None:
    call(import_neurons, "--mask", path, "--languages", "zh", "en", "--output-neurons", output, *more)


def test_import_neurons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "mask", MASK)
    output, document = tmp_path / "neurons" / "published.parquet", tmp_path / "neurons" / "published.json"
    import_mask(path, output, "--layers", 3, "--neurons", 6, "--output-summary", document)
    table, summary = artifacts.read_table(output, "neurons")
    assert rows(table) == [("zh", 0, 2), ("zh", 0, 0), ("zh", 2, 5), ("en", 1, 1)]
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == {
        "language": "str",
        "layer": "int64",
        "neuron": "int64",
        "entropy": "float64",
        "probability": "float64",
    }
    assert table[["entropy", "probability"]].isna().all(axis=None)
    assert summary == {
        "method": "published",
        "activation_bar": None,
        "percentile_by_language": {},
        "candidates": None,
        "requested": None,
        "selected": 4,
        "count_by_language": {"zh": 3, "en": 1},
        "entropy_min": None,
        "entropy_max": None,
        "top_rate": None,
        "activation_percentile": None,
        "layers": 3,
        "neurons_per_layer": 6,
        "file": "mask",
        "file_sha256": sha256(path),
    }
    assert artifacts.read_document(document, "selection") == summary
    assert capsys.readouterr().err == f"{path}: 4 distinct neurons: {{'zh': 3, 'en': 1}}\n"
    call(export_published, "--neurons", output, "--output", tmp_path / "again")
    assert same(load(tmp_path / "again"), MASK)


def test_import_neurons_as_csv(tmp_path: Path) -> None:
    import_mask(saved(tmp_path / "mask", MASK), tmp_path / "neurons.csv")
    assert (tmp_path / "neurons.csv").read_text() == "language,layer,neuron\nzh,0,2\nzh,0,0\nzh,2,5\nen,1,1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask", "neurons.csv"]


@pytest.mark.parametrize("name", ["neurons.tsv", "neurons", "neurons.CSV"])
def test_import_neurons_with_another_ending(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name}: neurons are written as \.parquet or \.csv"):
        import_mask(saved(tmp_path / "mask", MASK), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["mask"]


def test_import_neurons_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match=r"mask: language 'zh', layer 2: the index 5 .* \(0 to 4\)"):
        import_mask(saved(tmp_path / "mask", MASK), tmp_path / "neurons.csv", "--neurons", 5)
    assert not (tmp_path / "neurons.csv").exists()


def generation_files(folder: Path, answers: dict[str, list[str]]) -> list[Path]:
    """Published answers by file; the inputs are questions 1, 2, …"""
    contents = {
        name: [{"input": f"{name[:2]} {number}?", "output": text} for number, text in enumerate(outputs, 1)]
        for name, outputs in answers.items()
    }
    return [written(folder / name, json.dumps(entries)) for name, entries in contents.items()]


def import_answers(inputs: list[Path], folder: Path) -> list[Path]:
    outputs = [folder / "out" / path.name for path in inputs]
    grid = ("--perturbations", "none", "deactivate-de", "--languages", "en", "de")
    call(import_generations, *grid, "--inputs", *inputs, "--outputs", *outputs)
    return outputs


def test_import_generations(tmp_path: Path) -> None:
    answers = {"en.0": ["a", "b"], "de.0": ["c"], "en.de": ["", " e "], "de.de": ["f"]}
    inputs = generation_files(tmp_path, answers)
    outputs = import_answers(inputs, tmp_path)
    records = {path.name: artifacts.read_generations(path) for path in outputs}
    assert {name: [record["output"] for record in group] for name, group in records.items()} == answers
    assert [record["id"] for record in records["en.de"]] == ["en-1", "en-2"]
    assert records["de.de"] == plain([{"input": "de 1?", "output": "f"}])
    for path, published_file in zip(outputs, inputs, strict=True):
        call(export_published, "--generations", path, "--output", tmp_path / "again")
        assert json.loads((tmp_path / "again").read_bytes()) == json.loads(published_file.read_bytes())


def check_refused_import(inputs: list[Path], folder: Path, *parts: str) -> None:
    with pytest.raises(PublishedError) as caught:
        import_answers(inputs, folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (folder / "out").exists()  # nothing is written before everything is checked


def test_import_generations_with_a_missing_entry(tmp_path: Path) -> None:
    inputs = generation_files(tmp_path, {"en.0": ["a", "b"], "de.0": ["c"], "en.de": ["d"], "de.de": ["f"]})
    parts = ("differ from entry 2: no entry in place of ('en-2', 'en 2?') (1 and 2 entries)",)
    check_refused_import(inputs, tmp_path, f"{inputs[2]}: must answer", f"as {inputs[0]}, but", *parts)


def test_import_generations_with_other_inputs(tmp_path: Path) -> None:
    inputs = generation_files(tmp_path, {"en.0": ["a"], "de.0": ["c", "d"], "en.de": ["d"], "de.de": ["f", "g"]})
    entries = json.loads(inputs[3].read_bytes())
    written(inputs[3], json.dumps(entries[::-1]))
    parts = ("differ from entry 1: ('de-1', 'de 2?') in place of ('de-1', 'de 1?') (2 and 2 entries)",)
    check_refused_import(inputs, tmp_path, f"{inputs[3]}: must answer", f"as {inputs[1]}, but", *parts)


def test_import_generations_with_ids_in_one_file_alone(tmp_path: Path) -> None:
    """Answers are compared by id: those of two files must agree."""
    inputs = generation_files(tmp_path, {"en.0": ["a"], "de.0": ["c"], "en.de": ["d"], "de.de": ["f"]})
    written(inputs[2], json.dumps([{"id": "q1", "input": "en 1?", "output": "d"}]))
    check_refused_import(inputs, tmp_path, "('q1', 'en 1?') in place of ('en-1', 'en 1?')")


def test_import_generations_with_too_few_files(tmp_path: Path) -> None:
    inputs = generation_files(tmp_path, {"en.0": ["a"], "de.0": ["c"], "en.de": ["d"]})
    check_refused_import(inputs, tmp_path, "3 inputs and 3 outputs for 2 perturbations (none, deactivate-de)", "4 of")


def lape_table(path: Path) -> pd.DataFrame:
    """Neurons of three languages by LAPE; xx has none, and tr comes before de."""
    generator = np.random.default_rng(0)
    counts = {
        language: ActivationCounts(generator.integers(low, low + 50, (3, 4)), None, None, 100)
        for language, low in {"tr": 40, "xx": 0, "de": 40}.items()
    }
    selection = select(counts, 0.5, 0.8)
    summary = selection.summary() | {"method": "lape", "layers": 3, "neurons_per_layer": 4}
    artifacts.write_table(path, "neurons", selection.table, summary)
    assert list(dict.fromkeys(selection.table["language"])) == ["tr", "de"]
    return selection.table


@pytest.mark.parametrize("order", [None, ["tr", "xx", "de"]])
def test_export_neurons(order: list[str] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = lape_table(tmp_path / "lape.parquet")
    more = ["--languages", *order] if order else []
    call(export_published, "--neurons", tmp_path / "lape.parquet", "--output", tmp_path / "mask", *more)
    languages = order or ["tr", "de", "xx"]
    expected = [
        [
            torch.tensor(
                table.loc[(table["language"] == language) & (table["layer"] == layer), "neuron"].tolist(),
                dtype=torch.int64,
            )
            for layer in range(3)
        ]
        for language in languages
    ]
    assert same(load(tmp_path / "mask"), expected)
    assert f"their order is: {' '.join(languages)}\n" in capsys.readouterr().err
    masks = read_masks(tmp_path / "mask", languages, 3, 4)
    assert sorted(rows(masks.table)) == sorted(rows(table))


@pytest.mark.parametrize("order", [["tr", "de"], ["tr", "de", "yy"], ["tr", "de", "xx", "xx"], ["de", "de", "xx"]])
def test_export_neurons_of_other_languages(order: list[str], tmp_path: Path) -> None:
    lape_table(tmp_path / "lape.parquet")
    arguments = ("--neurons", tmp_path / "lape.parquet", "--output", tmp_path / "mask")
    with pytest.raises(PublishedError, match=rf"lape\.parquet: its languages are tr, de, xx, .* {', '.join(order)}\."):
        call(export_published, *arguments, "--languages", *order)
    assert not (tmp_path / "mask").exists()


def test_export_neurons_as_csv(tmp_path: Path) -> None:
    table = lape_table(tmp_path / "lape.parquet")
    call(export_published, "--neurons", tmp_path / "lape.parquet", "--output", tmp_path / "lape.csv")
    lines = (tmp_path / "lape.csv").read_text().splitlines()
    assert lines[0] == "language,layer,neuron,entropy,probability"
    again = pd.read_csv(tmp_path / "lape.csv").astype({"probability": np.float32})
    pd.testing.assert_frame_equal(again.astype({"language": "str"}), table, check_exact=True)


def test_export_neurons_of_an_unknown_number_of_layers(tmp_path: Path) -> None:
    table = pd.DataFrame({"language": ["en"], "layer": [0], "neuron": [1]})
    artifacts.write_table(tmp_path / "n.parquet", "neurons", table, {"count_by_language": {"en": 1}})
    with pytest.raises(PublishedError, match=r"n\.parquet: does not say how many layers"):
        call(export_published, "--neurons", tmp_path / "n.parquet", "--output", tmp_path / "mask")


@pytest.mark.parametrize(
    "arguments", [[], ["--neurons", "a", "--activations", "b"], ["--generations", "a", "--languages", "en"]]
)
def test_export_wants_one_kind(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(export_published, *arguments, "--output", tmp_path / "x")
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("script", [import_activations, import_neurons, import_generations, export_published])
def test_help_has_an_example(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--help"])
    assert "PYTHONPATH=workflow python workflow/scripts/" in " ".join(capsys.readouterr().out.split())


def test_a_mistake_ends_the_command_with_one_message(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / "import_activations.py"), "--languages", "de"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    result = subprocess.run(
        [*command, "--inputs", str(tmp_path / "nowhere"), "--outputs", str(tmp_path / "x")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == f"error: {tmp_path / 'nowhere'}: the file does not exist. Correct the path.\n"


# -- published data ---------------------------------------------------------------------------------------------------


def reference(*parts: str) -> Path:
    folder = REFERENCE.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"no published data in {folder}; name their folder in LANGNEURONS_REFERENCE")
    return folder


TOKENS = {"en": 6287360, "de": 4239360, "tr": 4874240}


@pytest.mark.parametrize("language", TOKENS)
def test_published_activations(language: str, tmp_path: Path) -> None:
    path = reference("activations") / f"activation.{language}.train.llama-7b"
    output = tmp_path / f"{language}.safetensors"
    shape = ("--layers", 32, "--neurons", 11008)
    call(import_activations, "--inputs", path, "--languages", language, *shape, "--outputs", output)
    counts, metadata = artifacts.read_activations(output)
    assert (counts.over_zero.shape, counts.tokens) == ((32, 11008), TOKENS[language])
    assert metadata["file"] == path.name
    call(export_published, "--activations", output, "--output", tmp_path / "again")
    content = load(path)
    assert list(content) == ["n", "over_zero"]
    assert content["over_zero"].dtype == torch.int32
    assert same(load(tmp_path / "again"), content)


def test_published_generations(tmp_path: Path) -> None:
    folder = reference("generations", "Llama-2-7b-hf")
    languages = ["en", "de", "tr"]
    suffixes = ["", *(f".perturb.{language}.train.llama-7b" for language in languages)]
    inputs = [folder / f"{language}{suffix}.jsonl" for suffix in suffixes for language in languages]
    assert len(inputs) == 12
    outputs = [tmp_path / "out" / path.name for path in inputs]
    perturbations = ["none", "deactivate-en", "deactivate-de", "deactivate-tr"]
    grid = ("--perturbations", *perturbations, "--languages", *languages)
    call(import_generations, *grid, "--inputs", *inputs, "--outputs", *outputs)
    for path, output in zip(inputs, outputs, strict=True):
        entries = json.loads(path.read_text(encoding="utf-8"))
        assert len(entries) == 70
        assert artifacts.read_generations(output) == plain(entries, path.name[:2])
        call(export_published, "--generations", output, "--output", tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
