# %% [markdown]
"""
# Language-specific neurons: from the tables onwards

Loads the tables of a run and redraws the main figures of its report, with pandas and matplotlib alone. **Save a copy
under another name before you change anything:** the workflow writes this file anew whenever the tables change.
"""

# %%
# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None, "metadata": {"Date": None, "Creator": None}}
# %config InlineBackend.figure_formats = ["svg"]
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

plt.rcParams.update({"svg.hashsalt": "analysis", "font.size": 9.0, "axes.titlesize": 9.0, "figure.titlesize": 10.5})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.alpha": 0.4})
plt.rcParams.update({"legend.frameon": False, "hatch.linewidth": 0.8, "figure.facecolor": "white"})
pd.set_option("display.max_colwidth", None, "display.max_rows", 200)

# %% [markdown]
# ## Parameters
# The folder of the tables, relative to this notebook; the models and languages that are drawn, in this order (shorten
# the lists to see two of twenty); and a colour per language.

# %% tags=["parameters"]
TABLES = "../tables"
MODELS = ["llama-demo", "gpt2-demo"]
LANGUAGES = ["en", "de", "tr"]
COLOURS = {"en": "#0072b2", "de": "#e69f00", "tr": "#009e73"}

# %% [markdown]
# ## Tables
# Every table is a DataFrame in the dict `tables`. `tables["perplexity"].info()` lists the columns, and
# `rows("perplexity", model="…", variant="…")` takes the rows that have these values.

# %%
HOLDS = {
    "recordings": "What was recorded: tokens, documents, software, by language",
    "neurons": "Selected neurons: number, entropy, activation probability, by method and language",
    "neurons_by_layer": "Selected neurons by method, language and layer",
    "overlaps": "Neurons that two languages, or two methods, share",
    "thresholds": "Bars and entropies of every selection, the run's default first",
    "perplexity": "Perplexity and its ratio to the unperturbed model's, by perturbation and language read",
    "text": "Answers: length, stop words, copying, repetition, by perturbation and language of the prompts",
    "output_languages": "Languages of the answers, by perturbation and language of the prompts",
    "effects": "Proof that every edit changed the model's outputs, and how many neurons it edits",
    "variants": "Settings of every variant: method, rate, site, edit, scale",
    "differences": "Effects with 95 % intervals and tests, against the unperturbed model and random neurons",
    "steering": "Share of the answers in the target language, with Wilson's 95 % interval",
    "stop_words": "Stop words by list and by language of the answers",
    "convergence": "Neurons that two methods share, by layer",
    "stability": "Neurons selected from parts of the recorded text",
    "replication": "Published numbers beside those of this run",
    "audit": "What the audit of the results found",
}
NAMES = ["model", "variant", "method"]  # text, whatever they look like


def table(name: str) -> pd.DataFrame:
    """A table; without its file an empty one, and a line that says how to make it. Only empty cells are NaN."""
    path = Path(TABLES, f"{name}.csv")
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(NAMES, "str"), keep_default_na=False, na_values=[""])
    except (FileNotFoundError, pd.errors.EmptyDataError):
        print(f"{path} is missing or empty. Make it with: snakemake --cores all results/tables/{name}.csv")
        return pd.DataFrame()


def rows(name: str, **wanted: str | Sequence[str]) -> pd.DataFrame:
    """Rows of a table with one of the wanted values in every named column; none if there is no such column."""
    found = tables[name]
    for column, values in wanted.items():
        allowed = [values] if isinstance(values, str) else list(values)
        found = found[found[column].isin(allowed)] if column in found else found.iloc[:0]
    return found


tables = {name: table(name) for name in HOLDS}
overview = [(name, *frame.shape, HOLDS[name]) for name, frame in tables.items()]
display(pd.DataFrame(overview, columns=["table", "rows", "columns", "what it holds"]).set_index("table"))

# %% [markdown]
# ## What is drawn
# Variants are ways of editing neurons; these are the run's. Drawn are the one that switches off the neurons of the
# default method at the default rate, those that steer best, and their random controls. Set other names to see others.

# %%
CONTROLS = {"layer": "random neurons, same layers", "activity": "random neurons, as active"}
FEW = len(LANGUAGES) <= 6


def controls_of(variant: str) -> dict[str, str]:
    """The random controls of a variant, with a label."""
    random = [row for row in rows("variants", kind="random").itertuples() if variant in str(row.of).split(", ")]
    return {str(row.variant): f"{CONTROLS.get(row.control, 'random neurons')}\n({row.variant})" for row in random}


off, steer, default = rows("variants", kind="deactivate"), rows("variants", kind="steer"), tables["thresholds"].head(1)
usual = off.merge(default[["method", "top_rate"]]) if len(off) and len(default) else off
shares = rows("steering", target="all", variant=list(steer.get("variant", [])))
ranked = shares.groupby("variant")["share"].mean().sort_values(ascending=False).index if len(shares) else []
shifts = [name for name in ranked if name in set(rows("variants", site="residual")["variant"])]  # without neurons
METHOD = next(iter(default.get("method", [])), "")
EDIT = next(iter([*usual.get("variant", []), *off.get("variant", [])]), "")
STEERING = [name for name in ranked if name not in shifts][: 2 if FEW else 1] + shifts[: int(FEW)]
print(f"METHOD = {METHOD!r}\nEDIT = {EDIT!r}\nSTEERING = {STEERING}")
display(tables["variants"])

# %%
# Helpers of the figures: nothing to change here. A dash stands for a number that is missing or infinite.
MUTED = "#5a636d"
known: dict[str, Any] = COLOURS | {language: MUTED for language in LANGUAGES if language not in COLOURS}
cycle = {name: place // 6 % 4 for place, name in enumerate(known)}  # six languages have hatch and marker in common
DOTS = {name: {"color": known[name], "marker": "os^D"[cycle[name]]} for name in LANGUAGES}
BARS = {name: {"facecolor": known[name], "hatch": ["", "////", "....", "xxxx"][cycle[name]]} for name in LANGUAGES}
BARS |= {"other": {"facecolor": "#8a929b"}, "undetermined": {"facecolor": "#c3c9cf"}}


def drawable(frame: pd.DataFrame, column: str, what: str) -> bool:
    """Whether there is any number to draw; if not, a line says so."""
    there = column in frame and bool(frame[column].notna().any())
    if not there:
        print(f"Nothing to draw: no {what}.")
    return there


def panels(number: int, size: tuple[float, float], title: str, x: str = "", y: str = "", most: int = 3) -> Any:
    """A figure and its panels of a size (inches), at most so many across, with a title and labels of both axes."""
    across = min(number, most)
    down = -(-number // across)
    whole = (across * size[0] + 0.9, down * size[1] + 0.8)
    figure, grid = plt.subplots(down, across, figsize=whole, layout="constrained", squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    for axes in grid.flat[number:]:
        axes.set_visible(False)
    return figure, list(grid.flat)[:number]


def ratio_axis(axis: Axis, values: np.ndarray) -> None:
    """A logarithmic axis of ratios that contains these values and 1, with round numbers."""
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = min(finite.min(initial=1), 0.98), max(finite.max(initial=1), 1.02)
    name, margin = "x" if axis is axis.axes.xaxis else "y", (high / low) ** 0.05
    axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (low / margin, high * margin)})
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if high / low < 4 else LogLocator(10, (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def dots(axes: Axes, estimates: pd.DataFrame, bands: Sequence[str], lanes: Sequence[str], style: Any) -> None:
    """Dots with intervals, from value, low and high: a band per first part of their index, a lane per second part."""
    axes.set_yticks(range(len(bands)), bands)
    axes.set_ylim(len(bands) - 0.5, -0.5)
    axes.grid(axis="x")
    for place in range(1, len(bands), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f3f5f7", zorder=0)
    for (place, band), (lane, name) in product(enumerate(bands), enumerate(lanes)):
        height, looks = place + 0.8 * ((lane + 0.5) / len(lanes) - 0.5), style(band, name)
        there = (band, name) in estimates.index
        for value, low, high in estimates.loc[[(band, name)]].to_numpy(float) if there else np.full((1, 3), np.nan):
            if np.isfinite(value):
                lengths = np.nan_to_num([[value - low], [high - value]], posinf=0, neginf=0).clip(0)
                axes.errorbar(value, height, xerr=lengths, linewidth=1.2, markersize=5 if FEW else 4, **looks)
            else:
                axes.text(0.01, height, "–", transform=axes.get_yaxis_transform(), va="center", color=looks["color"])


def show(figure: Any, looks: dict[str, dict[str, Any]]) -> None:
    """Show a figure with a legend of dots beside it."""
    handles = [Line2D([], [], linestyle="", label=name, **style) for name, style in looks.items()]
    figure.legend(handles=handles, loc="outside right upper", handletextpad=0.2)
    plt.show()


# %% [markdown]
# ## Where the neurons are
# How many neurons of each language are in every layer; layer 0 is nearest to the input. Change `METHOD`.


# %%
def draw_layers(model: str, method: str) -> None:
    """Bars of the neurons of every layer, a panel per language."""
    found = rows("neurons_by_layer", model=model, method=method, language=LANGUAGES)
    if not drawable(found, "neurons", f"neurons by layer of {model}, method {method!r}"):
        return
    _, grid = panels(len(LANGUAGES), (2.9, 1.6), f"{model}: neurons by layer ({method})", "layer", "neurons")
    for axes, language in zip(grid, LANGUAGES, strict=True):
        own = found[(found["language"] == language) & found["neurons"].notna()]
        axes.bar(own["layer"], own["neurons"], edgecolor="white", **BARS[language])
        axes.set_title(f"{language}: {own['neurons'].sum():,.0f} neurons" if len(own) else f"{language}: –")
        axes.set(xlim=(-0.6, found["layer"].max() + 0.6), ylim=(0, 1.05 * max(found["neurons"].max(), 1)))
        axes.locator_params(nbins=5, integer=True)
        axes.grid(axis="y")
    plt.show()


for model in MODELS:
    draw_layers(model, METHOD)

# %% [markdown]
# ## What switching them off does to perplexity
# The neurons of a language (row) are off while text of a language (column) is read: on the left its own, then as many
# random ones (mean of their draws). If neurons are specific, the diagonal is red on the left only. Change `EDIT`.


# %%
def draw_ratios(model: str, variant: str) -> None:
    """Heat maps of the perplexity ratio: a variant and its controls."""
    titles = {variant: f"neurons of the language\n({variant})", **controls_of(variant)}
    found = rows("perplexity", model=model, variant=list(titles), language=LANGUAGES, edited_language=LANGUAGES)
    if not drawable(found, "ratio", f"perplexity of {model}, variant {variant!r}"):
        return
    names = [name for name in titles if name in set(found["variant"])]
    ratios = found["ratio"].to_numpy(float)
    limit = np.exp(np.abs(np.log(ratios[np.isfinite(ratios) & (ratios > 0)])).max(initial=0.1))
    colours, norm, width = plt.get_cmap("RdBu_r"), LogNorm(1 / limit, limit, clip=True), 0.42 * len(LANGUAGES) + 1.1
    figure, grid = panels(len(names), (max(width, 3.1), width), f"{model}: perplexity ratio", most=3 if FEW else 2)
    for axes, name in zip(grid, names, strict=True):
        own = found[found["variant"] == name].pivot_table(index="edited_language", columns="language", values="ratio")
        cells = own.reindex(index=LANGUAGES, columns=LANGUAGES).to_numpy(float)
        shown = np.ma.masked_where(np.isnan(cells), cells.clip(1 / limit, limit))
        axes.pcolormesh(shown, norm=norm, cmap=colours, edgecolors="white")
        for (row, column), value in np.ndenumerate(cells):
            ink = "black" if np.isnan(value) or sum(to_rgb(colours(norm(value)))) > 1.5 else "white"
            text = "–" if np.isnan(value) else f"{value:.2f}" if value < 10 else f"{value:.3g}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=8)
        axes.set(facecolor="#dde1e6", aspect="equal", title=titles[name], xlabel="language read", ylabel="neurons of")
        axes.invert_yaxis()
        axes.set_xticks(np.arange(len(LANGUAGES)) + 0.5, LANGUAGES)
        axes.set_yticks(np.arange(len(LANGUAGES)) + 0.5, LANGUAGES)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(plt.cm.ScalarMappable(norm, colours), ax=grid, location="bottom", shrink=0.6, aspect=40)
    bar.set_label("perplexity, as a multiple of the unperturbed model's (log scale)")
    ratio_axis(bar.ax.xaxis, ratios)
    bar.ax.set_xlim(np.clip(bar.ax.get_xlim(), 1 / limit, limit))
    plt.show()


for model in MODELS:
    draw_ratios(model, EDIT)

# %% [markdown]
# ## Effects with intervals
# Effects on perplexity as ratios, with 95 % bootstrap intervals over windows of text. Filled dots read the language
# whose neurons are off: their effect is specific if they lie to the right of 1 and of the hollow dots in every panel.
# `q_value` is corrected for the number of cells (Benjamini-Hochberg).

# %%
ESTIMATE = ["ratio", "low", "high"]


def ratios_of(**wanted: str | Sequence[str]) -> pd.DataFrame:
    """Effects on perplexity as ratios with intervals, the exp of the differences, for edits of the chosen languages."""
    chosen = {"model": MODELS, "language": LANGUAGES, "edited_language": LANGUAGES, "measure": "perplexity", **wanted}
    found = rows("differences", **chosen)
    needed = [*found, *chosen, "against", "difference", "low", "high", "q_value"]  # also of an empty table
    found = found.reindex(columns=list(dict.fromkeys(needed)))
    return found.assign(ratio=np.exp(found["difference"]), low=np.exp(found["low"]), high=np.exp(found["high"]))


def draw_effects(model: str, variant: str) -> None:
    """Dots with intervals: a panel per comparison, a band per edited language, a lane per language read."""
    effects = ratios_of(model=model, variant=variant)
    if not drawable(effects, "ratio", f"effects on perplexity of {model}, variant {variant!r}"):
        return
    against = {"none": "the unperturbed model", **controls_of(variant)}
    names = [name for name in against if name in set(effects["against"])]
    size = (9.0 / min(len(names), 3), len(LANGUAGES) * (0.25 + (0.13 if FEW else 0.08) * len(LANGUAGES)) + 0.5)
    title = f"{model}: perplexity with the neurons of a language off ({variant})"
    scale = "perplexity, as a multiple of that of the comparison (log scale), with 95 % interval"
    figure, grid = panels(len(names), size, title, scale, "neurons of")
    for axes, name in zip(grid, names, strict=True):
        shown = effects[effects["against"] == name].set_index(["edited_language", "language"])[ESTIMATE]
        dots(
            axes, shown, LANGUAGES, LANGUAGES, lambda own, read: DOTS[read] | ({"mfc": "white"} if own != read else {})
        )
        axes.axvline(1, color=MUTED, linewidth=0.9, zorder=1)
        axes.set_title(f"against {against[name]}")
        ratio_axis(axes.xaxis, effects[ESTIMATE].to_numpy(float))
    show(figure, DOTS)


for model in MODELS:
    draw_effects(model, EDIT)
own = ratios_of(variant=EDIT).query("language == edited_language")
display(own.set_index(["model", "language", "against"])[[*ESTIMATE, "q_value"]].round(4))

# %% [markdown]
# ## Steering success
# Answers in the target language, to prompts in others, with Wilson's 95 % intervals over prompts: not perturbed
# (cross), steered (filled), by the same edit of random neurons (hollow). Change `STEERING`.


# %%
def draw_steering(model: str, variants: Sequence[str]) -> None:
    """Dots with intervals: a panel per target, a band per language of the prompts, a lane per variant."""
    looks: dict[str, dict[str, Any]] = {"none": {"color": MUTED, "marker": "x"}}
    for name, marker in zip(variants, "osD^vP", strict=False):
        looks[name] = {"color": MUTED, "marker": marker}
        looks |= {control: looks[name] | {"mfc": "white"} for control in controls_of(name)}
    found = rows("steering", model=model, variant=list(looks) if variants else [])
    if not drawable(found, "share", f"answers of {model} that were steered to another language"):
        return
    looks = {name: style for name, style in looks.items() if name in set(found["variant"])}
    targets = [name for name in ["all", *LANGUAGES] if name in set(found["target"])]
    size = (2.3, max(len(LANGUAGES) - 1, 1) * (0.15 + (0.11 if FEW else 0.07) * len(looks)) + 0.4)
    title, share = f"{model}: steering success", "answers in the target language (%), with 95 % interval"
    figure, grid = panels(len(targets), size, title, share, "prompts in", most=4)
    for axes, target in zip(grid, targets, strict=True):
        shown = found[found["target"] == target].set_index(["language", "variant"])[["share", "low", "high"]] * 100
        prompts = [name for name in ["all", *LANGUAGES] if name in shown.index.get_level_values("language")]
        colour = MUTED if target == "all" else DOTS[target]["color"]
        dots(axes, shown, prompts, list(looks), lambda _, name, colour=colour: looks[name] | {"color": colour})
        axes.set(xlim=(-4, 104), title="all directions together" if target == "all" else f"target {target}")
    show(figure, looks)


for model in MODELS:
    draw_steering(model, STEERING)

# %% [markdown]
# ## Languages of the answers
# Compare with the unperturbed bar (none), which need not be all in the language of the prompts, and with the controls
# (mean of their draws). `other` is a language outside the run, `undetermined` an answer as likely in two, or in none.


# %%
def draw_output_languages(model: str, variant: str) -> None:
    """Stacked bars of the languages of the answers, a panel per language of the prompts."""
    controls = list(controls_of(variant))
    found = rows("output_languages", model=model, variant=["none", variant, *controls])
    if not drawable(
        rows("output_languages", model=model, variant=variant), "share", f"answers of {model}, {variant!r}"
    ):
        return
    found = found[found["source_language"].isna() | (found["source_language"] == found["language"])]
    whose = ("-" + found["edited_language"].astype(str)).where(found["variant"] == variant, "")
    answer = found["output_language"].where(found["output_language"].isin(list(BARS)), "other")
    found = found.assign(bar=found["variant"] + whose, answer=answer)
    draws = found.groupby(["language", "bar"])["perturbation"].transform("nunique")
    found = found.assign(percent=100 * found["share"] / draws)
    percents = found.pivot_table(index=["language", "bar"], columns="answer", values="percent", aggfunc="sum")
    bars = [bar for bar in ["none", *(f"{variant}-{own}" for own in LANGUAGES), *controls] if bar in set(found["bar"])]
    title = f"{model}: languages of the answers ({variant})"
    figure, grid = panels(len(LANGUAGES), (2.9, 0.6 + 0.2 * len(bars)), title, "share of the answers (%)")
    for axes, language in zip(grid, LANGUAGES, strict=True):
        widths = percents.reindex([(language, bar) for bar in bars], columns=list(BARS)).fillna(0)
        starts = widths.cumsum(axis="columns") - widths
        for name, looks in BARS.items():
            places = np.flatnonzero(widths[name] > 0)
            axes.barh(places, widths[name].iloc[places], 0.8, starts[name].iloc[places], edgecolor="white", **looks)
        for place in np.flatnonzero(widths.sum(axis="columns") == 0):
            axes.text(1, place, "–", va="center", color=MUTED)
        axes.set_yticks(range(len(bars)), bars)
        axes.set(title=f"prompts in {language}", xlim=(0, 100), ylim=(len(bars) - 0.5, -0.5))
    handles = [Patch(edgecolor="white", label=name, **looks) for name, looks in BARS.items()]
    figure.legend(handles=handles, loc="outside right upper", handlelength=1)
    plt.show()


for model, variant in product(MODELS, [EDIT, *STEERING[:1]]):
    draw_output_languages(model, variant)

# %% [markdown]
# ## Go on from here
# A question of your own, as an example: does a language suffer more, the more of its neurons are off? `effects` has the
# number of neurons of every perturbation; a merge puts it beside their effect, over all variants that switch off.

# %%
own = ratios_of(kind="deactivate", against="none").query("language == edited_language and ratio > 0")
own = own.merge(tables["effects"].reindex(columns=["model", "perturbation", "edited_neurons"]))
if drawable(own, "edited_neurons", "effects of a known number of neurons"):
    display(own.pivot_table(["edited_neurons", "ratio"], ["model", "variant"], "language").round(4))
    models = [model for model in MODELS if model in set(own["model"])]
    title, ratio = "Effect on text of the neurons' own language", "perplexity ratio (log scale)"
    figure, grid = panels(len(models), (3.6, 2.8), title, "neurons switched off", ratio)
    for (axes, model), language in product(zip(grid, models, strict=True), LANGUAGES):
        line = own[(own["model"] == model) & (own["language"] == language)].sort_values("edited_neurons")
        axes.plot(line["edited_neurons"], line["ratio"], **DOTS[language])
        axes.set_title(model)
        ratio_axis(axes.yaxis, own["ratio"].to_numpy(float))
    show(figure, DOTS)
