"""The configuration: messages on mistakes, defaults and identifiers."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from langneurons import config, cross_checks, validation, variants
from langneurons.errors import ConfigError, UserError
from langneurons.validation import SCHEMA as SCHEMA_FILE
from langneurons.validation import validate
from langneurons.variants import PERPLEXITY, Job, Perturbation

Mapping = dict[str, Any]

TEXTS = str(config.DEMO / "corpus" / "{language}" / "*.txt")
"""A pattern that matches text of every embedded language."""
SCHEMA = yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))
MINIMAL = {
    "run": {"models": ["small"], "languages": ["en", "de", "tr"]},
    "models": {"small": {"source": "demo", "architecture": "llama"}},
}


def with_changes(**changes: Any) -> Mapping:
    """The minimal config with keys set; `__` separates the parts of a key, as in run__languages."""
    result: Mapping = copy.deepcopy(MINIMAL)
    for key, value in changes.items():
        *parents, last = key.split("__")
        below = result
        for parent in parents:
            below = below.setdefault(parent, {})
        below[last] = value
    return result


def message(**changes: Any) -> str:
    """The message on a config with these changes."""
    with pytest.raises(ConfigError) as caught:
        validate(with_changes(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def valid(**changes: Any) -> Mapping:
    return validate(with_changes(**changes))


def test_the_minimal_config_is_valid() -> None:
    assert valid()["run"]["models"] == ["small"]


def test_a_config_error_is_a_users_mistake() -> None:
    assert issubclass(ConfigError, UserError)


# -- unknown and missing keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "path", "meant"),
    [
        ("sead", "sead", "seed"),
        ("run__langauges", "run.langauges", "languages"),
        ("identification__toprate", "identification.toprate", "top_rate"),
        ("corpora__tokens__training", "corpora.tokens.training", "train"),
        ("models__small__layer", "models.small.layer", "layers"),
        ("perturbations__zero__sites", "perturbations.zero.sites", "site"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(key: str, path: str, meant: str) -> None:
    changes: Mapping = {"perturbations__zero": {"kind": "deactivate"}} if path.startswith("perturbations") else {}
    text = message(**changes, **{key: 1})
    assert text.startswith(f"config key '{path}' is unknown. Did you mean '{meant}'? Known keys here: ")
    assert meant in text.split("Known keys here: ")[1].rstrip(".").split(", ")


def test_an_unknown_key_that_resembles_nothing() -> None:
    text = message(zzzzzz=1)
    assert text.startswith("config key 'zzzzzz' is unknown. Known keys here: ")
    assert "Did you mean" not in text
    assert {"corpora", "run", "seed"} <= set(text.split("Known keys here: ")[1].rstrip(".").split(", "))


def test_the_known_keys_are_those_of_the_source() -> None:
    text = message(models__small={"source": "hub", "id": "x/y", "layers": 3})
    assert text.startswith("config key 'models.small.layers' is unknown.")
    known = text.split("Known keys here: ")[1].rstrip(".").split(", ")
    assert {"id", "revision", "source"} <= set(known)
    assert "layers" not in known


def test_draws_belong_to_random_variants() -> None:
    text = message(perturbations={"deactivate": {"kind": "deactivate", "draws": 2}}, run__perturbations=["deactivate"])
    assert text.startswith("config key 'perturbations.deactivate.draws' is unknown.")


@pytest.mark.parametrize(
    ("model", "missing"),
    [({}, "source"), ({"source": "demo"}, "architecture"), ({"source": "hub"}, "id"), ({"source": "folder"}, "path")],
)
def test_a_missing_key_of_a_model(model: Mapping, missing: str) -> None:
    assert message(models__small=model) == f"config key 'models.small.{missing}' is missing."


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"perturbations__zero": {}}, "perturbations.zero.kind"),
        ({"corpora__default": {"source": "files"}}, "corpora.default.path"),
        ({"run": {"models": ["small"]}}, "run.languages"),
    ],
)
def test_a_missing_key(changes: Mapping, path: str) -> None:
    assert message(**changes) == f"config key '{path}' is missing."


def test_missing_sections() -> None:
    with pytest.raises(ConfigError, match="config key 'models' is missing"):
        validate({})
    with pytest.raises(ConfigError, match="config key 'run' is missing"):
        validate({"models": MINIMAL["models"]})


# -- wrong values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "path", "type_"),
    [
        ("seed", "one", "seed", "a whole number"),
        ("seed", 1.5, "seed", "a whole number"),
        ("seed", True, "seed", "a whole number"),
        ("run__languages", "en", "run.languages", "a list"),
        ("models", None, "models", "a mapping (key: value)"),
        ("identification__top_rate", "5%", "identification.top_rate", "a number"),
        ("corpora__window", [128], "corpora.window", "a whole number"),
        ("models__small__layers", "4", "models.small.layers", "a whole number"),
    ],
)
def test_a_wrong_type(key: str, value: Any, path: str, type_: str) -> None:
    text = message(**{key: value})
    assert text.startswith(f"config key '{path}' is {value!r}, but must be {type_}")


def test_the_baseline_is_not_named_as_a_perturbation() -> None:
    text = message(run__perturbations=["none", "deactivate"])
    assert text.startswith("config key 'run.perturbations[0]' names the baseline 'none', which always runs.")


def test_a_wrong_type_is_explained_by_the_keys_description() -> None:
    assert SCHEMA["properties"]["seed"]["description"].rstrip(".") in message(seed="one")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("run: {models: [small], languages: [no, en]}", "config key 'run.languages.0' is False"),
        ("run: {models: [small], languages: [en, on]}", "config key 'run.languages.1' is True"),
        ("corpora: {languages: {no: {source: files, path: x}}}", "config key 'corpora.languages.False' is no text"),
        ("generation: {prompts: {no: no.txt}}", "config key 'generation.prompts.False' is no text"),
    ],
)
def test_an_unquoted_no_is_explained(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate({**MINIMAL, **yaml.safe_load(text)})
    assert str(caught.value).startswith(key)
    assert "YAML reads an unquoted no" in str(caught.value)
    assert 'in quotes, such as "no"' in str(caught.value)


def test_a_quoted_no_is_a_language(tmp_path: Path) -> None:
    prompts = tmp_path / "no.txt"
    prompts.write_text("Hvorfor?\n" * 21, encoding="utf-8")  # the first 20 are for validation
    source = {"source": "files", "path": str(tmp_path / "*.txt")}
    checked = valid(
        run__languages=["en", "no"], corpora__languages={"no": source}, generation__prompts={"no": str(prompts)}
    )
    assert config.corpus(checked, "no")["path"] == str(tmp_path / "*.txt")


@pytest.mark.parametrize("name", ["Llama", "llama_7b", "-llama", "llama/7b", "llama 7b", "llama.7b", ""])
def test_a_bad_name_of_a_model_or_variant(name: str) -> None:
    ending = "is not allowed (Lower-case letters, digits and hyphens); it must match ^[a-z0-9][a-z0-9-]*$."
    model = {"source": "demo", "architecture": "gpt2"}
    assert message(**{f"models__{name}" if name else "models": model if name else {"": model}}).endswith(ending)
    text = message(perturbations={name: {"kind": "deactivate"}})
    assert text == f"config key 'perturbations': {name!r} {ending}"


@pytest.mark.parametrize("code", ["EN", "pt-br", "1en", "_en", "türkçe", ""])
def test_a_bad_language_code(code: str) -> None:
    text = message(run__languages=["en", code])
    assert text.startswith(
        f"config key 'run.languages.1': {code!r} is not allowed (A language code of lower-case letters"
    )
    assert text.endswith("it must match ^[a-z][a-z0-9_]*$.")
    text = message(corpora__languages={code: {"source": "embedded"}})
    assert text.startswith(f"config key 'corpora.languages': {code!r} is not allowed")


@pytest.mark.parametrize(
    ("key", "value", "path", "choices"),
    [
        ("models__small__source", "hubb", "models.small.source", ["demo", "folder", "hub"]),
        ("models__small__architecture", "bert", "models.small.architecture", ["llama", "gpt2"]),
        ("models__small__dtype", "float8", "models.small.dtype", ["float32", "bfloat16", "float16"]),
        ("models__small__attention", "flash", "models.small.attention", ["sdpa", "eager", "flash_attention_2", "null"]),
        ("perturbations__zero", {"kind": "zap"}, "perturbations.zero.kind", ["deactivate", "random"]),
        ("recording__split", "training", "recording.split", ["train", "valid", "test"]),
        ("corpora__default", {"source": "web"}, "corpora.default.source", ["embedded", "files", "wikipedia"]),
    ],
)
def test_a_value_outside_the_choices(key: str, value: Any, path: str, choices: list[str]) -> None:
    text = message(**{key: value})
    shown = next(iter(value.values())) if isinstance(value, dict) else value
    start = f"config key '{path}' is {shown!r}; choose one of: "
    assert text.startswith(start)
    assert set(choices) <= set(text.removeprefix(start).rstrip(".").split(", "))


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("identification__top_rate", 0, "identification.top_rate"),
        ("identification__top_rate", 1.5, "identification.top_rate"),
        ("identification__activation_percentile", 1, "identification.activation_percentile"),
        ("corpora__share__test", 1, "corpora.share.test"),
        ("corpora__share__valid", -0.1, "corpora.share.valid"),
        ("corpora__window", 1, "corpora.window"),
        ("corpora__tokens__train", 0, "corpora.tokens.train"),
        ("seed", -1, "seed"),
        ("run__languages", [], "run.languages"),
        ("run__languages", ["en", "en"], "run.languages"),
        ("run__models", [], "run.models"),
        ("run__perturbations", ["random", "random"], "run.perturbations"),
    ],
)
def test_a_value_out_of_range(key: str, value: Any, path: str) -> None:
    text = message(**{key: value})
    assert text.startswith(f"config key '{path}': {value!r} ")


@pytest.mark.parametrize(("share", "bad"), [((0.5, 0.5), True), ((0.6, 0.9), True), ((0.49, 0.5), False)])
def test_the_shares_must_leave_something_to_train_on(share: tuple[float, float], bad: bool) -> None:
    changes = {"corpora__share": {"valid": share[0], "test": share[1]}}
    if bad:
        text = message(**changes)
        assert text == "config key 'corpora.share': valid and test together must leave something to train on."
    else:
        assert valid(**changes)["corpora"]["share"] == changes["corpora__share"]


def test_the_template_needs_its_placeholder() -> None:
    text = message(generation__template="Question:")
    assert text.startswith("config key 'generation.template': 'Question:' is not allowed")
    assert "{question}" in text


# -- names that must exist elsewhere ---------------------------------------------------------------------------------


def test_an_unknown_model() -> None:
    assert message(run__models=["small", "large"]) == (
        "config key 'run.models[1]' names 'large', which is no entry of 'models'. Entries there: small."
    )
    assert message(models={}).endswith("Entries there: none.")


def test_an_unknown_variant() -> None:
    assert message(run__perturbations=["zap"], perturbations={"b": {"kind": "random"}, "a": {"kind": "random"}}) == (
        "config key 'run.perturbations[0]' names 'zap', which is no entry of 'perturbations'. Entries there: a, b."
    )


def test_one_language_is_refused_with_the_reason() -> None:
    text = message(run__languages=["de"])
    assert text.startswith("config key 'run.languages' names only 'de'.")
    assert "entropy 0" in text
    assert text.endswith("Name at least two.")


def test_a_language_without_a_corpus() -> None:
    text = message(run__languages=["en", "fi"])
    assert text.startswith("language 'fi' has no corpus: the embedded one holds de, en, tr.")
    assert "'corpora.languages.fi'" in text
    assert 'path: "texts/fi/*.txt"' in text


def test_a_language_of_the_training_without_a_corpus() -> None:
    assert message(models__small__languages=["en", "fi"]).startswith("language 'fi' has no corpus")


def test_a_language_without_prompts() -> None:
    source = {"source": "files", "path": TEXTS.replace("{language}", "en")}
    text = message(run__languages=["en", "fi"], corpora__languages={"fi": source})
    assert text.startswith("language 'fi' has no prompts")
    assert "one question per line" in text
    assert text.endswith("'generation.prompts.fi'.")


def test_a_language_of_the_training_needs_no_prompts() -> None:
    source = {"source": "files", "path": TEXTS.replace("{language}", "en")}
    assert valid(models__small__languages=["en", "fi"], corpora__languages={"fi": source})["seed"] == 0


def test_models_that_do_not_run_need_no_corpus() -> None:
    other = {"source": "demo", "architecture": "gpt2", "languages": ["fi"]}
    assert "other" in valid(models__other=other)["models"]


def test_none_is_the_baselines_name() -> None:
    catalogue = {"none": {"kind": "deactivate"}, "deactivate": {"kind": "deactivate"}}
    assert message(perturbations=catalogue, run__perturbations=["deactivate"]) == (
        "config key 'perturbations.none': this name is kept for the baseline. Choose another."
    )


def test_two_variants_of_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two names can give one id with kinds whose ids end in a language or a draw; others may come."""
    monkeypatch.setattr(cross_checks, "perturbations", lambda *_: ["none", "both-en", "both-en"])
    text = message(
        perturbations={"a": {"kind": "deactivate"}, "b": {"kind": "deactivate"}}, run__perturbations=["a", "b"]
    )
    assert text == "config key 'perturbations': two variants give the perturbation 'both-en'. Rename one of them."


def test_two_variants_of_one_job_are_refused() -> None:
    """The second part of `r` has the name of the variant `r-part-2`."""
    catalogue = {"r": {"kind": "random", "draws": 2}, "r-part-2": {"kind": "deactivate"}}
    text = message(perturbations=catalogue, run__perturbations=["r", "r-part-2"], perturbations_per_job=3)
    assert text == "config key 'perturbations': two variants give the job 'r-part-2'. Rename one of them."
    assert len(variants.jobs(valid(perturbations=catalogue, run__perturbations=["r", "r-part-2"]), PERPLEXITY)) == 3


# -- defaults --------------------------------------------------------------------------------------------------------


def test_defaults_of_the_design() -> None:
    checked = valid()
    assert checked["seed"] == 0
    assert {"deactivate", "random"} <= set(checked["perturbations"])
    assert checked["perturbations"]["deactivate"]["kind"] == "deactivate"
    assert (checked["perturbations"]["random"]["kind"], checked["perturbations"]["random"]["draws"]) == ("random", 3)
    assert checked["identification"]["method"] == "lape"
    assert (checked["identification"]["top_rate"], checked["identification"]["activation_percentile"]) == (0.05, 0.95)
    sections = "run seed models corpora recording identification perturbations perplexity generation metrics report"
    assert set(sections.split()) <= set(checked)


def test_defaults_behind_conditions() -> None:
    hub = valid(models__small={"source": "hub", "id": "x/y"})["models"]["small"]
    assert (hub["revision"], hub["engine"]) == ("main", "hf")
    assert (hub["dtype"], hub["gpus"]) == ("bfloat16", 1)  # the condition's default wins
    assert "layers" not in hub
    demo = valid()["models"]["small"]
    assert (demo["layers"], demo["neurons"], demo["languages"]) == (4, 512, ["en", "de", "tr"])
    assert (demo["dtype"], demo["gpus"], demo["attention"]) == ("float32", 0, None)
    assert "revision" not in demo
    folder = valid(models__other={"source": "folder", "path": "x"})["models"]["other"]
    assert folder["engine"] == "hf"
    assert "revision" not in folder


def test_defaults_of_entries_of_catalogues() -> None:
    wikipedia = valid(corpora__languages={"tr": {"source": "wikipedia"}})["corpora"]["languages"]["tr"]
    assert (wikipedia["dataset"], wikipedia["snapshot"], wikipedia["code"]) == ("wikimedia/wikipedia", "20231101", None)
    assert "path" not in wikipedia
    catalogue = {"r": {"kind": "random"}, "d": {"kind": "deactivate"}}
    checked = valid(perturbations=catalogue, run__perturbations=["r"])["perturbations"]
    assert (checked["r"]["draws"], checked["r"]["site"], checked["d"]["site"]) == (5, "activation", "activation")
    assert "draws" not in checked["d"]
    assert "top_rate" not in checked["d"]


def test_defaults_inside_a_section_that_was_given_in_part() -> None:
    tokens = valid(corpora__tokens__test=900)["corpora"]["tokens"]
    assert tokens["test"] == 900
    assert tokens["train"] > 0
    assert tokens["valid"] > 0


def test_given_values_win() -> None:
    checked = valid(seed=7, models__small__layers=2, generation__stop=[], models__small__languages=["de"])
    assert (checked["seed"], checked["models"]["small"]["layers"]) == (7, 2)
    assert (checked["generation"]["stop"], checked["models"]["small"]["languages"]) == ([], ["de"])


def test_the_users_mapping_is_not_changed_and_not_shared() -> None:
    given = with_changes(models__big={"source": "hub", "id": "x/y"})
    before = copy.deepcopy(given)
    checked = validate(given)
    checked["run"]["languages"].append("fi")
    checked["models"]["big"]["id"] = "changed"
    assert given == before


def test_defaults_are_not_shared_between_entries_and_configs() -> None:
    models = valid(models__other={"source": "demo", "architecture": "gpt2"})["models"]
    models["small"]["languages"].append("fi")
    assert models["other"]["languages"] == ["en", "de", "tr"]
    valid()["models"]["small"]["languages"].append("fi")
    valid()["perturbations"]["zap"] = {}
    assert valid()["models"]["small"]["languages"] == ["en", "de", "tr"]
    assert "zap" not in valid()["perturbations"]


# -- identifiers -----------------------------------------------------------------------------------------------------


def test_perturbation_ids_of_the_design() -> None:
    checked = valid(run__perturbations=["deactivate", "random"])
    randoms = [f"random-{language}-{draw}" for language in ("en", "de", "tr") for draw in (1, 2, 3)]
    assert variants.perturbations(checked) == ["none", "deactivate-en", "deactivate-de", "deactivate-tr", *randoms]


def test_members() -> None:
    checked = valid(
        perturbations={"ctl-2": {"kind": "random", "draws": 2}, "off": {"kind": "deactivate"}},
        run__perturbations=["off"],
    )
    assert variants.members(checked, "off") == [
        Perturbation(f"off-{language}", language) for language in ("en", "de", "tr")
    ]
    assert variants.members(checked, "ctl-2")[:3] == [
        Perturbation("ctl-2-en-1", "en", draw=1),
        Perturbation("ctl-2-en-2", "en", draw=2),
        Perturbation("ctl-2-de-1", "de", draw=1),
    ]
    assert variants.perturbations(checked) == ["none", "off-en", "off-de", "off-tr"]  # only what runs


def test_the_order_of_languages_is_the_runs() -> None:
    checked = valid(run__languages=["tr", "en"], run__perturbations=["deactivate"])
    assert variants.perturbations(checked) == ["none", "deactivate-tr", "deactivate-en"]


def test_only_the_baseline() -> None:
    checked = valid(run__perturbations=[])
    assert variants.perturbations(checked) == ["none"]
    assert variants.jobs(checked, PERPLEXITY) == [Job("none", "none", ("none",))]


def test_one_job_per_family() -> None:
    checked = valid(perturbations__random={"kind": "random", "draws": 1}, run__perturbations=["random"])
    assert variants.jobs(checked, PERPLEXITY) == [
        Job("none", "none", ("none",)),
        Job("random", "random", ("random-en-1", "random-de-1", "random-tr-1")),
    ]


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (1, [("r-en-1",), ("r-en-2",), ("r-de-1",), ("r-de-2",), ("r-tr-1",), ("r-tr-2",)]),
        (4, [("r-en-1", "r-en-2", "r-de-1", "r-de-2"), ("r-tr-1", "r-tr-2")]),
    ],
)
def test_perturbations_per_job_cuts_a_family(size: int, parts: list[tuple[str, ...]]) -> None:
    checked = valid(
        perturbations={"r": {"kind": "random", "draws": 2}}, run__perturbations=["r"], perturbations_per_job=size
    )
    expected = [Job(f"r-part-{number}", "r", part) for number, part in enumerate(parts, 1)]
    assert variants.jobs(checked, PERPLEXITY) == [Job("none", "none", ("none",)), *expected]


@pytest.mark.parametrize("size", [0, 6, 7])
def test_a_family_that_fits_into_one_job_keeps_its_name(size: int) -> None:
    checked = valid(
        perturbations={"r": {"kind": "random", "draws": 2}}, run__perturbations=["r"], perturbations_per_job=size
    )
    assert [job.name for job in variants.jobs(checked, PERPLEXITY)] == ["none", "r"]


def test_jobs_cover_every_perturbation_once() -> None:
    for size in range(18):
        checked = valid(perturbations_per_job=size)
        covered = [member for job in variants.jobs(checked, PERPLEXITY) for member in job.members]
        assert covered == variants.perturbations(checked)


def test_selections_are_named_by_their_rate_where_it_differs() -> None:
    catalogue = {
        "same": {"kind": "deactivate"},
        "equal": {"kind": "deactivate", "top_rate": 0.05},
        "one": {"kind": "deactivate", "top_rate": 0.01},
        "one-random": {"kind": "random", "top_rate": 0.01},
        "unused": {"kind": "deactivate", "top_rate": 0.2},
    }
    checked = valid(
        perturbations=catalogue,
        run__perturbations=["one", "same", "equal", "one-random"],
        identification__compare=[],
    )
    names = {variant: variants.selection(checked, variant) for variant in catalogue if variant != "unused"}
    assert names == {"same": "lape", "equal": "lape", "one": "lape-top-0.01", "one-random": "lape-top-0.01"}
    assert list(variants.run_selections(checked)) == config.selections(checked, "small") == ["lape", "lape-top-0.01"]
    assert variants.run_selections(checked)["lape"]["top_rate"] == 0.05
    assert variants.run_selections(checked)["lape-top-0.01"]["top_rate"] == 0.01


def test_the_attention_is_an_engine_setting_only_where_it_is_named() -> None:
    """Results from before the key existed stay as they are; naming one changes the rounding, so it reruns the model."""
    silent = config.engine_settings(valid(), "small")
    assert silent == {"model": "results/small/model", "revision": None, "name": "hf", "dtype": "float32"}
    assert config.engine_settings(valid(models__small__attention=None), "small") == silent
    named = config.engine_settings(valid(models__small__attention="eager"), "small")
    assert named == silent | {"attention": "eager"}


HOOKED: list[Mapping] = [
    {"kind": "steer", "site": "activation"},
    {"kind": "steer", "site": "residual"},
    {"kind": "random", "of": "other"},
]


@pytest.mark.parametrize("variant", HOOKED)
def test_models_run_eagerly_where_an_edit_needs_hooks(variant: Mapping) -> None:
    catalogue = {"off": {"kind": "deactivate"}, "other": HOOKED[0], "one": variant}
    plain, hooked = (
        {"perturbations": catalogue, "run__perturbations": names} for names in (["off"], ["off", "other", "one"])
    )
    for model, compiles in (({"engine": "vllm", "gpus": 1}, True), ({"gpus": 1}, True), ({"engine": "vllm"}, False)):
        keys = {f"models__small__{key}": value for key, value in model.items()}
        settings = [config.measuring_settings(valid(**keys, **run), "small") for run in (plain, hooked)]
        assert [one["eager"] for one in settings] == [not compiles, True]
        assert "eager" not in config.engine_settings(valid(**keys, **hooked), "small")  # recording never compiles
        for eager in (True, False):
            assert (
                config.measuring_settings(valid(**keys, **hooked, models__small__eager=eager), "small")["eager"]
                is eager
            )
    # The reference engine on the CPU never compiles: its results do not depend on the other variants of the run.
    assert config.measuring_settings(valid(**hooked), "small") == config.engine_settings(valid(), "small")


def test_products_are_edited_without_hooks() -> None:
    catalogue = {"one": {"kind": "steer", "site": "product"}, "same": {"kind": "random", "of": "one"}}
    chosen = valid(perturbations=catalogue, run__perturbations=["one", "same"], models__small__gpus=1)
    assert config.measuring_settings(chosen, "small")["eager"] is False


def test_sums_are_recorded_where_they_are_needed() -> None:
    off = {"perturbations": {"off": {"kind": "deactivate"}}, "run__perturbations": ["off"], "recording__sums": False}
    assert valid(**off, identification__compare=[])["recording"]["sums"] is False
    with pytest.raises(
        ConfigError, match=r"'recording.sums' is false.*needed by identification: mean-difference\. Leave"
    ):
        valid(**off)
    steered = off | {"perturbations": {"on": {"kind": "steer"}}, "run__perturbations": ["on"]}
    with pytest.raises(ConfigError, match=r"'recording.sums' is false.*needed by perturbations.on"):
        valid(**steered, identification__compare=[])


def test_canonical_does_not_depend_on_the_order_of_keys() -> None:
    one = {"b": [2, 1], "a": {"d": "ğ", "c": None}}
    other = {"a": {"c": None, "d": "ğ"}, "b": [2, 1]}
    assert config.canonical(one) == config.canonical(other) == '{"a": {"c": null, "d": "ğ"}, "b": [2, 1]}'
    assert config.canonical({**one, "b": [1, 2]}) != config.canonical(one)
    shuffled = dict(reversed(with_changes(seed=3).items()))
    assert config.canonical(validate(shuffled)) == config.canonical(valid(seed=3))


# -- files of the corpora and prompts --------------------------------------------------------------------------------


def test_the_corpus_of_a_language() -> None:
    checked = valid(
        corpora__default={"source": "files", "path": TEXTS},
        corpora__languages={"tr": {"source": "wikipedia"}, "de": {"source": "wikipedia", "code": "als"}},
    )
    assert config.corpus(checked, "en")["path"] == TEXTS.replace("{language}", "en")
    assert config.corpus(checked, "tr")["code"] == "tr"
    assert config.corpus(checked, "de")["code"] == "als"
    assert checked["corpora"]["default"]["path"] == TEXTS  # unchanged
    assert config.source_files(config.corpus(checked, "tr"), "tr") == []


def test_the_embedded_files_are_relative_to_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(config.DEMO.parents[2])
    files = config.source_files({"source": "embedded"}, "tr")
    assert files == sorted(files)
    assert all(file.startswith("workflow/langneurons/demo/corpus/tr/") for file in files)
    assert config.prompt_path(valid(), "tr") == "workflow/langneurons/demo/prompts/tr.txt"
    monkeypatch.chdir(tmp_path)
    assert all(Path(file).is_file() for file in config.source_files({"source": "embedded"}, "tr"))


def test_named_prompts_win(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("Neden?\n" * 21, encoding="utf-8")
    checked = valid(generation__prompts={"tr": str(mine)})
    assert config.prompt_path(checked, "tr") == str(mine)
    assert str(config.prompt_path(checked, "en")).endswith("demo/prompts/en.txt")
    assert config.prompt_path(checked, "fi") is None


def test_a_models_own_window() -> None:
    checked = valid(models__wide={"source": "hub", "id": "x/y", "window": 64}, corpora__window=32)
    assert config.window(checked, "wide") == 64
    assert config.window(checked, "small") == 32


def test_tokens_of_a_language() -> None:
    checked = valid(corpora__tokens={"train": {"en": 60000, "de": 50000, "tr": 40000, "fr": 1}, "test": 7000})
    assert config.tokens(checked, "de") == {"train": 50000, "valid": 6000, "test": 7000}
    assert [config.tokens(checked, language)["train"] for language in ("en", "tr")] == [60000, 40000]


def test_tokens_for_every_language_of_the_run() -> None:
    assert message(corpora__tokens__valid={"en": 6000, "tr": 6000}) == (
        "config key 'corpora.tokens.valid' names no number for language 'de'. Give one for every language of the run, "
        "or one number for all."
    )
    assert "'corpora.tokens.train.en': 0 is less than the minimum of 1" in message(corpora__tokens__train={"en": 0})
    assert "must be a whole number or a mapping" in message(corpora__tokens__train="5%")


def test_a_model_of_the_hub_depends_on_its_download() -> None:
    checked = valid(models__big={"source": "hub", "id": "x/y"})
    assert config.hub_models(checked) == ["big"]
    assert config.model_files(checked, "big") == ["results/big/download.json"]
    assert config.tokenizer_settings(checked, "big") == {"model": "x/y", "revision": "main"}


# -- the schema ------------------------------------------------------------------------------------------------------


def resolved(schema: Mapping) -> Mapping:
    if "$ref" not in schema:
        return schema
    target: Any = SCHEMA
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **schema}


def keys_of(schema: Mapping, path: str, described: frozenset[str] = frozenset()) -> Iterator[tuple[str, Mapping, bool]]:
    """Every key of a schema with what is said of it, and whether the schema around it describes it."""
    schema = resolved(schema)
    properties = schema.get("properties", {})
    for name, below in properties.items():
        key = f"{path}.{name}" if path else name
        yield key, resolved(below), name in described
        yield from keys_of(below, key)
    branches = [conditional["then"] for conditional in schema.get("allOf", [])]
    elsewhere = {
        name
        for branch in branches
        for name, below in branch.get("properties", {}).items()
        if below.keys() - {"default"}
    }
    for branch in branches:
        yield from keys_of(branch, path, frozenset(properties) | elsewhere)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys_of(schema["additionalProperties"], f"{path}.*")


KEYS = list(keys_of(SCHEMA, ""))


def test_the_walk_over_the_schema_finds_nested_keys() -> None:
    found = {key for key, _, _ in KEYS}
    assert {"seed", "corpora.tokens.train", "models.*.layers", "corpora.languages.*.shuffle_buffer"} <= found
    assert "perturbations.*.draws" in found


def faults_of(key: str, schema: Mapping, described: bool) -> list[str]:
    """What is not said of a key."""
    if described and not schema.keys() - {"default"}:
        return []  # allowed or given another default by a condition; described where it is defined
    without_words = [] if re.search(r"\w{3}", schema.get("description", "")) else [f"{key} has no description"]
    return without_words + ([] if schema.keys() & {"type", "enum", "allOf"} else [f"{key} has no type"])


def test_every_key_has_a_description_and_a_type() -> None:
    assert len(KEYS) > 100
    assert [fault for key, schema, described in KEYS for fault in faults_of(key, schema, described)] == []


def test_a_key_without_description_or_type_would_be_found() -> None:
    assert faults_of("a", {"default": 1}, False) == ["a has no description", "a has no type"]
    assert faults_of("a", {"default": 1}, True) == []


def test_every_default_fits_its_own_schema() -> None:
    """Defaults are filled in after the validation, so a wrong one would go unnoticed."""
    checked = valid(
        models={
            "small": MINIMAL["models"]["small"],
            "big": {"source": "hub", "id": "x"},
            "own": {"source": "folder", "path": "x"},
        },
        corpora__languages={"en": {"source": "files", "path": TEXTS}, "tr": {"source": "wikipedia"}},
        metrics__relevance={"kind": "judge", "path": "x"},
        perturbations={"off": {"kind": "deactivate"}, "on": {"kind": "steer"}, "control": {"kind": "random"}},
        run__perturbations=["off", "on", "control"],
    )
    written = json.loads(config.canonical(checked))
    for variant in written["perturbations"].values():
        del variant["family"], variant["base"]  # added when sweeps are expanded
    assert validate(written) == checked


def test_the_default_experiment_is_valid() -> None:
    path = config.DEMO.parents[2] / "config.yaml"
    checked = validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert checked["run"]["languages"] == ["en", "de", "tr"]
    assert {model["source"] for model in checked["models"].values()} >= {"demo"}


# -- what is meant, and what is only noticed later ---------------------------------------------------------------------


def test_whole_numbers_may_be_written_as_floats() -> None:
    """YAML reads 4.096e+3 as a float; what needs an integer gets one, also where a list or a mapping holds it."""
    checked = valid(
        seed=1.0e3,
        corpora__window=32.0,
        corpora__tokens={"train": 4.096e3, "valid": {"en": 64.0, "de": 64.0, "tr": 96.0}},
        models__small__training_seeds=[1.0, 2.0],
        models__small__training_tokens=1e6,
        perturbations={"steer": {"kind": "steer", "site": "residual", "scale": 2.0, "layers": [1.0]}},
        perturbations__more={"kind": "random", "draws": 2.0},
        run__perturbations=["steer", "more"],
    )
    found = [
        checked["seed"],
        checked["corpora"]["window"],
        checked["corpora"]["tokens"]["train"],
        *checked["corpora"]["tokens"]["valid"].values(),
        checked["perturbations"]["more"]["draws"],
        *checked["perturbations"]["steer"]["layers"],
        *(model["training_tokens"] for model in checked["models"].values()),
        *(seed for model in checked["models"].values() for seed in model["training_seeds"] or []),
    ]
    assert all(type(number) is int for number in found), found
    assert type(checked["perturbations"]["steer"]["scale"]) is float
    assert json.loads(json.dumps(checked)) == valid(
        seed=1000,
        corpora__window=32,
        corpora__tokens={"train": 4096, "valid": {"en": 64, "de": 64, "tr": 96}},
        models__small__training_seeds=[1, 2],
        models__small__training_tokens=1_000_000,
        perturbations={"steer": {"kind": "steer", "site": "residual", "scale": 2.0, "layers": [1]}},
        perturbations__more={"kind": "random", "draws": 2},
        run__perturbations=["steer", "more"],
    )
    assert "'corpora.window' is 32.5, but must be a whole number" in message(corpora__window=32.5)


def test_a_key_that_is_there_twice_names_file_key_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("run:\n  models: [a]\nmodels:\n  a: {source: demo}\n  b:\n    gpus: 1\n    gpus: 2\n")
    with pytest.raises(ConfigError) as caught:
        validation.check_files([path])
    said = f"{path}: the config key 'models.b.gpus' is there twice, in lines 6 and 7, and only the last would count."
    assert str(caught.value) == f"{said} Remove one."
    path.write_text("a: {b: 1}\nc: {b: 1}\nd: [{b: 1}, {b: 1}]\n")
    validation.check_files([path, tmp_path / "nowhere.yaml"])
    path.write_text("a: [1\n")
    validation.check_files([path])  # what is no YAML is said by who reads it


@pytest.mark.parametrize("name", ["tables", "logs", "report", "benchmarks"])
def test_a_model_named_as_a_folder_of_results(name: str) -> None:
    text = message(models={name: MINIMAL["models"]["small"], "small": MINIMAL["models"]["small"]})
    assert text.startswith(f"config key 'models.{name}': the folder results/{name} is kept for other files.")


def test_the_home_folder_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts").mkdir()
    for language in MINIMAL["run"]["languages"]:
        (tmp_path / "texts" / f"{language}.txt").write_text("text")
    for folder, path in ((None, "~/texts/{language}.txt"), ("~/texts/", "{folder}/{language}.txt")):
        checked = valid(folder=folder, corpora__default={"source": "files", "path": path})
        assert checked["corpora"]["default"]["path"] == f"{tmp_path}/texts/{{language}}.txt"


def test_a_language_without_stop_words_is_said_at_once(tmp_path: Path) -> None:
    texts, prompts = tmp_path / "is.txt", tmp_path / "prompts.txt"
    texts.write_text("Hér er texti.")
    prompts.write_text("Hvað?\n" * 30)
    changes: Mapping = {
        "run__languages": ["en", "is"],
        "corpora__languages": {"is": {"source": "files", "path": str(texts)}},
        "generation__prompts": {"is": str(prompts)},
    }
    text = message(**changes)
    assert text.startswith("language 'is' has no stop-word list: 'is' is neither a file nor a list of stopwordsiso (")
    assert text.endswith("Name a file with one word per line in 'metrics.stop_words.is'.")
    assert "'of-mine' is neither a file" in message(**changes, metrics__stop_words={"is": "of-mine"})
    valid(**changes, metrics__stop_words={"is": str(prompts)})


def test_a_layer_beyond_the_model_is_said_at_once(tmp_path: Path) -> None:
    shift = {"kind": "steer", "site": "residual", "layers": [1, 4]}
    changes: Mapping = {"run__perturbations": ["shift"]}
    assert message(**changes, perturbations={"shift": shift}) == (
        "config key 'perturbations.shift.layers' names layer 4, but the model 'small' has 4 layers, the last of them "
        "3. Correct it, or leave it out for the middle one."
    )
    valid(**changes, perturbations={"shift": shift | {"layers": [1, 3]}})
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "n_layer": 3}')
    (tmp_path / "tokenizer.json").write_text("{}")
    folder = {"source": "folder", "path": str(tmp_path)}
    text = message(**changes, models__small=folder, perturbations={"shift": shift | {"layers": [3]}})
    assert "names layer 3, but the model 'small' has 3 layers" in text
    unused = {"source": "demo", "architecture": "gpt2", "layers": 2}
    valid(**changes, models__unused=unused, perturbations={"shift": shift | {"layers": [1, 3]}})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "and not neither"),
        ({"path": "scorer", "id": "of/hub"}, "and not both"),
        ({"path": "scorer", "revision": "main"}, "'metrics.relevance.revision' belongs to a repository of the hub"),
    ],
)
def test_what_scores_relevance_is_a_folder_or_one_of_the_hub(settings: Mapping, said: str) -> None:
    assert said in message(metrics__relevance={"kind": "judge", **settings})
    valid(metrics__relevance={"kind": "judge", "id": "of/hub", "revision": "main"})


def test_a_dataset_that_is_also_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wikimedia" / "wikipedia").mkdir(parents=True)
    text = message(corpora__default={"source": "wikipedia"})
    assert "the dataset 'wikimedia/wikipedia' of language 'en' is a folder here, and may be one of the hub" in text
    valid(corpora__default={"source": "wikipedia", "dataset": "./wikimedia/wikipedia"})


def test_a_model_that_is_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"model\.gguf' is a file, but must be a folder .*such as \.gguf"):
        valid(models__small={"source": "folder", "path": str(path)})


def test_a_pointer_of_git_lfs_in_place_of_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match=r"a pointer of git-lfs in place of the file model\.safetensors\..*lfs pull"):
        valid(models__small={"source": "folder", "path": str(tmp_path)})


@pytest.mark.parametrize("content", ["[]", "5", '"text"'])
def test_a_model_config_that_is_no_object(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"has a config\.json that is not a JSON object"):
        valid(models__small={"source": "folder", "path": str(tmp_path)})
