"""The notebook: drawn values, the same bytes twice, and one clear message for what is missing or fails."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nbformat import NotebookNode, v4

from langneurons.report import looks, notebook
from langneurons.report.notebook import NotebookError

SOURCE = Path(__file__).parents[2] / "report" / "notebook" / "analysis.py"
LANGUAGES = ["en", "de", "sw"]
"""The last one has no neurons, and no perplexity."""
PARAMETERS = {"TABLES": "../tables", "MODELS": ["7"], "LANGUAGES": LANGUAGES, "COLOURS": notebook.colours(LANGUAGES)}
TABLES = {
    "variants": """\
variant,kind,of,method,top_rate,site,control
elsewhere,deactivate,,lape,0.01,activation,
deactivate,deactivate,,lape,0.05,activation,
random,random,deactivate,lape,0.05,activation,layer
steer,steer,,lape,0.05,activation,
random-steer,random,steer,lape,0.05,activation,layer
""",
    "steering": """\
model,variant,language,target,share,low,high
7,none,en,de,0.05,0,0.15
7,none,sw,de,,,
7,none,all,all,0.05,0,0.15
7,steer,en,de,0.75,0.7,0.85
7,steer,sw,de,,,
7,steer,all,all,0.75,0.7,0.85
7,random-steer,en,de,0.25,0.2,0.35
7,random-steer,sw,de,,,
7,random-steer,all,all,0.25,0.2,0.35
""",
    "output_languages": """\
model,perturbation,language,output_language,share,variant,kind,edited_language,source_language
7,none,en,en,1,none,none,,
7,steer-de,en,de,0.75,steer,steer,de,
7,steer-de,en,undetermined,0.25,steer,steer,de,
7,random-steer-de-1,en,en,1,random-steer,random,de,
7,random-steer-de-2,en,en,0.5,random-steer,random,de,
7,random-steer-de-2,en,la,0.3,random-steer,random,de,
7,random-steer-de-2,en,cy,0.2,random-steer,random,de,
""",
    "thresholds": "model,method,top_rate\n7,lape,0.05\n",
    "effects": "model,perturbation,edited_neurons\n7,deactivate-en,4\n7,deactivate-de,4\n7,deactivate-sw,0\n",
    "audit": "\n",
}
"""Steering to German succeeds for 3 of 4 answers, and was not measured from Swahili."""


def write_tables(folder: Path) -> None:
    """The tables of one model: own ratio 1.5, others 1.1, and 1.02 and 1.06 in two random draws."""
    folder.mkdir(parents=True)
    for name, text in TABLES.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    frames: dict[str, list[dict[str, Any]]] = {"neurons_by_layer": [], "perplexity": [], "differences": []}
    for language, layer in product(LANGUAGES, range(2)):
        number = {"en": [3, 1], "de": [0, 4], "sw": [0, 0]}[language][layer]
        frames["neurons_by_layer"].append({"method": "lape", "language": language, "layer": layer, "neurons": number})
    for edited, read in product(LANGUAGES, repeat=2):
        ratio = np.nan if edited == "sw" else 1.5 if edited == read else 1.1
        edit = {"perturbation": f"deactivate-{edited}", "variant": "deactivate", "kind": "deactivate"}
        pair = {"language": read, "edited_language": edited}
        frames["perplexity"].append({**edit, **pair, "ratio": ratio})
        for draw in (1, 2):
            drawn = {"perturbation": f"random-{edited}-{draw}", "variant": "random", "kind": "random", "draw": draw}
            frames["perplexity"].append({**drawn, **pair, "ratio": 0.98 + 0.04 * draw})
        for against, difference in {"none": np.log(ratio), "random": np.log(ratio / 1.04)}.items():
            effect = {"against": against, "difference": difference, "low": difference - 0.1, "high": difference + 0.1}
            frames["differences"].append({**edit, **pair, **effect, "measure": "perplexity", "q_value": 0.01})
    for name, lines in frames.items():
        pd.DataFrame([{"model": "7", **line} for line in lines]).to_csv(folder / f"{name}.csv", index=False)


# -- made of its source ----------------------------------------------------------------------------------------------


def test_parameters_replace_those_of_the_source() -> None:
    made = notebook.build(SOURCE.read_text(encoding="utf-8"), PARAMETERS)
    (cell,) = (cell for cell in made.cells if "parameters" in cell.metadata.get("tags", []))
    assert cell.source.splitlines() == [
        'TABLES = "../tables"',
        'MODELS = ["7"]',
        'LANGUAGES = ["en", "de", "sw"]',
        'COLOURS = {"en": "#0072b2", "de": "#e69f00", "sw": "#009e73"}',
    ]
    assert [cell.id for cell in made.cells][:2] == ["cell-1", "cell-2"]
    assert made.cells[0].cell_type == "markdown"
    assert made.cells[1].source.startswith("%matplotlib inline\n%config ")
    nbformat.validate(made)


def test_parameters_are_python_whatever_they_hold() -> None:
    values = {"A": 'a "quote" \\ and\nlines', "B": [1, 2.5, None, True], "C": {"é": ("x",)}}
    made = notebook.build('# %% tags=["parameters"]\nA = B = 1\nC = 2\n', values)
    found: dict[str, Any] = {}
    exec(made.cells[0].source, found)
    assert {name: found[name] for name in values} == {**values, "C": {"é": ["x"]}}


def test_colours_are_those_of_the_figures() -> None:
    many = [f"l{number}" for number in range(8)]
    assert notebook.colours(many) == {language: looks.look(language, many).colour for language in many}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# %%\nA = 1\n", "The source has 0 cells with the tag parameters. Give this tag to one cell."),
        ('# %% tags=["parameters"]\nB = 1\n', "The cell parameters assigns B. Let it assign A, in this order."),
    ],
)
def test_source_without_these_parameters_is_refused(source: str, message: str) -> None:
    with pytest.raises(NotebookError, match=re.escape(message)):
        notebook.build(source, {"A": 1})


# -- what its code draws ---------------------------------------------------------------------------------------------


@dataclass
class Drawn:
    """What the code of the notebook leaves behind, run without a kernel."""

    names: dict[str, Any]
    printed: str
    figures: list[Figure]


def run_code(folder: Path, parameters: dict[str, Any]) -> Drawn:
    """Run the cells as a script, in a folder."""
    made = notebook.build(SOURCE.read_text(encoding="utf-8"), parameters)
    code = "\n".join(cell.source for cell in made.cells if cell.cell_type == "code")
    code = "\n".join("" if line.startswith("%") else line for line in code.splitlines())
    names: dict[str, Any] = {"__name__": "analysis"}
    figures: list[Figure] = []
    printed = StringIO()

    def keep() -> None:
        figures.extend(plt.figure(number) for number in plt.get_fignums())
        plt.close("all")

    with pytest.MonkeyPatch.context() as patch, mpl.rc_context({"backend": "agg"}):
        patch.chdir(folder)
        patch.setattr(plt, "show", keep)
        patch.setattr("sys.stdout", printed)
        with pd.option_context("display.max_colwidth", None, "display.max_rows", 200):
            exec(compile(code, "analysis", "exec"), names)
        for figure in figures:
            figure.draw_without_rendering()
    return Drawn(names, printed.getvalue(), figures)


def bars(axes: Axes) -> list[tuple[float, ...]]:
    """Left, bottom, width and height of every bar."""
    return [tuple(np.round(bar.get_bbox().bounds, 4)) for bar in axes.patches if isinstance(bar, Rectangle)]


def panels(figure: Figure) -> dict[str, Axes]:
    """The visible panels by title."""
    return {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}


def dots(axes: Axes) -> list[list[float]]:
    """Value, low and high of every dot, from top to bottom."""
    found: list[list[float]] = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (interval,) = container
        (low, height), (high, _) = interval.get_segments()[0]
        found.append([height, *np.round([line.get_xdata()[0], low, high], 4)])
    return [values for _, *values in sorted(found)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    write_tables(folder / "tables")
    (folder / "report").mkdir()
    return run_code(folder / "report", PARAMETERS)


def test_variants_of_the_default_method_and_rate_are_drawn(drawn: Drawn) -> None:
    assert [drawn.names[name] for name in ("METHOD", "EDIT", "STEERING")] == ["lape", "deactivate", ["steer"]]
    assert len(drawn.figures) == 6
    assert "Nothing to draw: no answers of 7, 'deactivate'." in drawn.printed


def test_bars_are_the_neurons_of_every_layer(drawn: Drawn) -> None:
    found = panels(drawn.figures[0])
    assert list(found) == ["en: 4 neurons", "de: 4 neurons", "sw: 0 neurons"]
    heights = [[height for *_, height in bars(axes)] for axes in found.values()]
    assert heights == [[3, 1], [0, 4], [0, 0]]


def test_heat_maps_have_the_ratios_and_means_of_draws(drawn: Drawn) -> None:
    found = panels(drawn.figures[1])
    edit, control = (
        [text.get_text() for text in found[title].texts]
        for title in ("neurons of the language\n(deactivate)", "random neurons, same layers\n(random)")
    )
    assert edit == ["1.50", "1.10", "1.10", "1.10", "1.50", "1.10", "–", "–", "–"]
    assert control == ["1.04"] * 9


def test_effects_have_their_intervals_and_dashes(drawn: Drawn) -> None:
    found = panels(drawn.figures[2])
    assert list(found) == ["against the unperturbed model", "against random neurons, same layers\n(random)"]
    one, other = list(found.values())
    narrow, wide = np.round([np.exp(np.log(ratio) + np.array([0, -0.1, 0.1])) for ratio in (1.1, 1.5)], 4).tolist()
    assert dots(one) == [wide, narrow, narrow, narrow, wide, narrow]
    assert dots(other)[0][0] == round(1.5 / 1.04, 4)
    assert [text.get_text() for text in one.texts] == ["–"] * 3


def test_steering_has_its_shares_in_percent(drawn: Drawn) -> None:
    found = panels(drawn.figures[3])
    assert list(found) == ["all directions together", "target de"]
    expected = [[5, 0, 15], [75, 70, 85], [25, 20, 35]]
    assert dots(found["all directions together"]) == expected
    assert dots(found["target de"]) == expected
    assert [label.get_text() for label in found["target de"].get_yticklabels()] == ["en", "sw"]
    assert [text.get_text() for text in found["target de"].texts] == ["–"] * 3


def test_stacked_bars_are_shares_and_means_of_draws(drawn: Drawn) -> None:
    axes = panels(drawn.figures[4])["prompts in en"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "steer-de", "random-steer"]
    drawn_bars = {(round(bottom + 0.4), left, width) for left, bottom, width, _ in bars(axes)}
    assert drawn_bars == {(0, 0, 100), (1, 0, 75), (1, 75, 25), (2, 0, 75), (2, 75, 25)}
    assert [text.get_text() for text in panels(drawn.figures[4])["prompts in sw"].texts] == ["–"] * 3


def test_example_pairs_neurons_with_effects(drawn: Drawn) -> None:
    (axes,) = panels(drawn.figures[5]).values()
    lines = [np.round([*np.asarray(line.get_xdata()), *np.asarray(line.get_ydata())], 4) for line in axes.lines]
    assert [list(line) for line in lines] == [[4, 1.5], [4, 1.5], []]


def test_languages_of_one_colour_differ_otherwise(tmp_path: Path) -> None:
    many = [f"l{number}" for number in range(13)]
    names = run_code(tmp_path, PARAMETERS | {"LANGUAGES": many, "COLOURS": notebook.colours(many)}).names
    drawn = [(names["DOTS"][name]["color"], names["DOTS"][name]["marker"]) for name in many]
    assert drawn == [(looks.look(name, many).colour, looks.look(name, many).marker) for name in many]
    assert [names["BARS"][name]["hatch"] for name in many] == [looks.look(name, many).hatch for name in many]


def test_missing_tables_are_named_with_their_targets(tmp_path: Path) -> None:
    drawn = run_code(tmp_path, PARAMETERS)
    for name in ("perplexity", "steering"):
        line = (
            f"../tables/{name}.csv is missing or empty. Make it with: snakemake --cores all results/tables/{name}.csv\n"
        )
        assert drawn.printed.count(line) == 1
    assert drawn.printed.count("Nothing to draw: ") == 6
    assert drawn.figures == []


# -- executed --------------------------------------------------------------------------------------------------------


@dataclass
class Executed:
    """What the command writes, and the home that it was given."""

    output: Path
    home: Path
    made: NotebookNode


def outputs(made: NotebookNode, kind: str) -> list[str]:
    """The outputs of a MIME type, or the text of streams."""
    found = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    return [
        out["text"] if kind == out.get("name") else out["data"][kind]
        for out in found
        if kind in (out.get("name"), *out.get("data", {}))
    ]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    from scripts import execute_notebook

    folder = tmp_path_factory.mktemp("executed")
    write_tables(folder / "tables")
    startup = folder / "home" / ".ipython" / "profile_default" / "startup" / "first.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("raise SystemExit('settings of the user')", encoding="utf-8")
    (folder / "matplotlibrc").write_text("figure.dpi: 7\n", encoding="utf-8")
    output = folder / "report" / "analysis.ipynb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("PYTHONSTARTUP", str(startup))
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("MATPLOTLIBRC", str(folder))
        arguments = ["--source", str(SOURCE), "--models", "7", "--languages", *LANGUAGES]
        execute_notebook.main([*arguments, "--tables", str(folder / "tables"), "--output", str(output)])
    return Executed(output, folder / "home", nbformat.read(output, as_version=4))


def test_executed_notebook_has_figures_and_no_errors(executed: Executed) -> None:
    kinds = {out.output_type for cell in executed.made.cells if cell.cell_type == "code" for out in cell.outputs}
    assert kinds == {"display_data", "stream"}
    assert outputs(executed.made, "stderr") == []
    figures = outputs(executed.made, "image/svg+xml")
    assert len(figures) == 6
    assert not any("<dc:date>" in figure for figure in figures)
    assert [cell.metadata for cell in executed.made.cells if cell.metadata] == [{"tags": ["parameters"]}]
    nbformat.validate(executed.made)


def test_tables_in_the_outputs_are_those_of_the_files(executed: Executed) -> None:
    html = outputs(executed.made, "text/html")
    overview, variants, effects, example = (pd.read_html(StringIO(text))[0] for text in html)
    sizes = overview.set_index(overview.columns[0]).iloc[:, :2]
    tables = {path.stem: path for path in (executed.output.parents[1] / "tables").glob("*.csv")}
    assert tuple(sizes.loc["differences"]) == pd.read_csv(tables["differences"]).shape == (18, 12)
    assert tuple(sizes.loc["audit"]) == tuple(sizes.loc["text"]) == (0, 0)
    assert len(variants) == 5
    ratios = effects["ratio"].squeeze().dropna()
    assert ratios.tolist() == [1.5, 1.4423, 1.5, 1.4423]  # against the unperturbed model, and 1.04 of random neurons
    assert example.iloc[0, 2:].astype(float).tolist() == [4, 4, 1.5, 1.5]


def test_settings_and_home_of_the_user_are_left_alone(executed: Executed) -> None:
    assert [path.name for path in executed.home.rglob("*") if path.is_file()] == ["first.py"]
    assert [path.name for path in executed.output.parent.iterdir()] == ["analysis.ipynb"]


def test_second_execution_writes_the_same_bytes(
    executed: Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 20)  # too long for sockets in it
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = notebook.build(SOURCE.read_text(encoding="utf-8"), PARAMETERS)
    again = notebook.execute(made, executed.output.parent)
    assert executed.output.read_bytes() == f"{nbformat.writes(again)}\n".encode()
    assert list(long.iterdir()) == []
    assert not any(cell.get("outputs") for cell in made.cells)


def cells(*sources: str) -> NotebookNode:
    """A notebook of a heading and code."""
    return v4.new_notebook(cells=[v4.new_markdown_cell("# A step\ntext"), *map(v4.new_code_cell, sources)])


def message_of(made: NotebookNode, folder: Path) -> str:
    """What is said when a notebook fails."""
    with pytest.raises(NotebookError) as error:
        notebook.execute(made, folder)
    return str(error.value)


def test_failing_cell_is_one_clear_error(tmp_path: Path) -> None:
    made = cells("def helper() -> None:\n    raise KeyError('no\\nsuch column')", "print(1)\nhelper()", "print(2)")
    assert message_of(made, tmp_path) == (
        "Cell 2 of the notebook (below “A step”) raised KeyError: 'no\\nsuch column', in line 2 of cell 1. "
        "Correct that cell in the notebook's source, or the table that it reads."
    )


def test_cell_that_ends_python_is_one_clear_error(tmp_path: Path) -> None:
    assert message_of(cells("1", "import os\nos._exit(1)"), tmp_path) == (
        "Cell 2 of the notebook (below “A step”) ended: Kernel died. Was it stopped, or was there too little memory?"
    )


def test_warnings_do_not_name_the_process(tmp_path: Path) -> None:
    made = notebook.execute(cells("import warnings\nwarnings.warn('beware', stacklevel=1)"), tmp_path)
    assert outputs(made, "stderr") == ["a cell:2: UserWarning: beware\n  warnings.warn('beware', stacklevel=1)\n"]
