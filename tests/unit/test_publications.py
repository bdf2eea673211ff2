"""Published models in the config: which files they are, and what is refused before anything runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from langneurons import config
from langneurons.config import ConfigError
from langneurons.errors import UserError
from langneurons.publications import PublicationError
from langneurons.report.references import references
from langneurons.validation import validate

HASH = "0" * 63 + "a"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """All files of a model in en and de; what is in them does not matter to the config."""
    names = ["act.en", "act.de", "en.jsonl", "de.jsonl", "mask.pth"]
    names += [f"{language}.off.{target}.jsonl" for language in ("en", "de") for target in ("en", "de")]
    names += [
        f"{language}.drawn.{target}.{draw}" for language in ("en", "de") for target in ("en", "de") for draw in (1, 2)
    ]
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def raw(folder: Path, **changes: Any) -> dict[str, Any]:
    theirs = {
        "source": "published",
        "activations": f"{folder}/act.{{language}}",
        "generations": {
            "none": f"{folder}/{{language}}.jsonl",
            "deactivate": f"{folder}/{{language}}.off.{{target}}.jsonl",
        },
        "masks": {"path": f"{folder}/mask.pth", "languages": ["en", "zh"]},
    }
    theirs = {key: value for key, value in (theirs | changes).items() if value is not None}
    run = {"models": ["theirs"], "languages": ["en", "de"], "perturbations": ["deactivate", "random"]}
    return {
        "run": run,
        "models": {"theirs": theirs},
        "perturbations": {"deactivate": {"kind": "deactivate"}, "random": {"kind": "random", "draws": 2}},
    }


# -- what a model is made of -------------------------------------------------------------------------------------------


def test_everything(files: Path) -> None:
    checked = validate(raw(files))
    assert config.published_models(checked) == ["theirs"]
    assert config.own_models(checked) == []
    assert config.contents(checked, "theirs") == {
        "published": True,
        "recorded": True,
        "methods": ["lape", "published"],
        "mask_languages": ["en", "zh"],
        "read": [],
        "answered": ["none", "deactivate-en", "deactivate-de"],
    }
    assert config.published_files(checked, "theirs")["activations/de"].location == f"{files}/act.de"
    answers = config.answers(checked, "theirs")
    assert list(answers) == [
        (perturbation, language)
        for perturbation in ("none", "deactivate-en", "deactivate-de")
        for language in ("en", "de")
    ]
    assert answers["deactivate-de", "en"].location == f"{files}/en.off.de.jsonl"  # prompts in en, neurons of de off
    assert answers["none", "de"].path("theirs") == f"{files}/de.jsonl"


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["generations", "masks"], {"recorded": True, "methods": ["lape"], "answered": []}),
        (["activations", "generations"], {"recorded": False, "methods": ["published"], "answered": []}),
        (
            ["activations", "masks"],
            {"recorded": False, "methods": [], "answered": ["none", "deactivate-en", "deactivate-de"]},
        ),
    ],
)
def test_any_part_alone(files: Path, missing: list[str], expected: dict[str, Any]) -> None:
    contents = config.contents(validate(raw(files, **dict.fromkeys(missing))), "theirs")
    assert {key: contents[key] for key in expected} == expected


def test_random_draws(files: Path) -> None:
    generations = {"none": f"{files}/{{language}}.jsonl", "random": f"{files}/{{language}}.drawn.{{target}}.{{draw}}"}
    answers = config.answers(validate(raw(files, generations=generations)), "theirs")
    assert len(answers) == (1 + 2 * 2) * 2
    assert answers["random-de-2", "en"].location == f"{files}/en.drawn.de.2"


def test_variants_that_do_not_run_are_left_out(files: Path) -> None:
    settings = raw(files)
    settings["run"]["perturbations"] = ["random"]
    assert config.contents(validate(settings), "theirs")["answered"] == ["none"]


def test_published_model_needs_no_corpus_and_no_settings_of_a_machine(files: Path) -> None:
    settings = raw(files)
    settings["run"]["languages"] = ["en", "de"]
    settings["corpora"] = {"default": {"source": "files", "path": "nowhere/{language}.txt"}}
    assert validate(settings)["models"]["theirs"].keys() == {"source", "activations", "generations", "masks"}


def test_own_and_published_models_together(files: Path) -> None:
    settings = raw(files)
    settings["models"]["small"] = {"source": "demo", "architecture": "llama"}
    settings["run"]["models"] = ["small", "theirs"]
    checked = validate(settings)
    assert config.own_models(checked) == ["small"]
    assert config.contents(checked, "small")["read"]
    assert len(config.contents(checked, "small")["answered"]) == 1 + 2 + 4


# -- addresses and checksums -------------------------------------------------------------------------------------------


def test_addresses_are_read_where_they_are_downloaded(files: Path) -> None:
    url = "https://example.org/act.{language}?download=1"
    sha256 = {"act.de": HASH.upper(), "act.en?download=1": HASH}
    checked = validate(raw(files, activations={"path": url, "sha256": sha256}))
    file = config.published_files(checked, "theirs")["activations/de"]
    assert file.remote
    assert file.location == "https://example.org/act.de?download=1"
    assert file.path("theirs") == "results/theirs/published/activations/de"
    assert file.sha256 == HASH.upper()
    assert config.published_files(checked, "theirs")["activations/en"].sha256 == HASH


def test_one_checksum_for_one_file(files: Path) -> None:
    masks = {"path": f"{files}/mask.pth", "languages": ["en", "zh"], "sha256": HASH}
    assert config.published_files(validate(raw(files, masks=masks)), "theirs")["masks"].sha256 == HASH


# -- {folder} ----------------------------------------------------------------------------------------------------------


def test_folder_moves_all_paths(files: Path) -> None:
    settings = raw(
        files, activations="{folder}/act.{language}", masks={"path": "{folder}/mask.pth", "languages": ["en"]}
    )
    (files / "words").touch()
    settings |= {"folder": f"{files}/", "metrics": {"stop_words": {"en": "{folder}/words"}}}
    settings["generation"] = {"prompts": {"de": "{folder}/questions"}}
    settings["models"]["other"] = {"source": "published", "activations": "{folder}/act.{language}"}
    checked = validate(settings)
    assert config.published_files(checked, "theirs")["activations/en"].location == f"{files}/act.en"
    assert config.published_files(checked, "theirs")["masks"].location == f"{files}/mask.pth"
    assert checked["metrics"]["stop_words"] == {"en": f"{files}/words"}
    assert checked["generation"]["prompts"] == {"de": f"{files}/questions"}


def test_template_of_prompts_is_no_path(files: Path) -> None:
    settings = raw(files) | {"generation": {"template": "{folder} {question}"}}
    assert validate(settings)["generation"]["template"] == "{folder} {question}"


def test_missing_folder(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.theirs\.activations.*'folder'.*--config folder="):
        validate(raw(files, activations="{folder}/act.{language}"))


def test_missing_folder_of_a_model_that_does_not_run(files: Path) -> None:
    settings = raw(files)
    settings["models"]["other"] = {"source": "published", "activations": "{folder}/act.{language}"}
    assert validate(settings)["run"]["models"] == ["theirs"]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activations": None, "generations": None, "masks": None}, ["models.theirs", "'activations', 'masks'"]),
        ({"activations": "FOLDER/none.{language}"}, ["models.theirs", "none.en", "does not exist", "activations/en"]),
        ({"activations": "FOLDER/act.en"}, ["models.theirs.activations", "lacks {language}"]),
        ({"activations": "FOLDER/act.{lang}"}, ["theirs.activations", "unknown placeholder {lang}", "{language}"]),
        ({"activations": "FOLDER/act.{language"}, ["models.theirs.activations", "is no pattern"]),
        ({"activations": "ftp://example.org/{language}"}, ["models.theirs.activations", "ftp://", "http(s)"]),
        ({"generations": {"deactivate": "FOLDER/{language}.jsonl"}}, ["generations.deactivate", "lacks {target}"]),
        ({"generations": {"random": "FOLDER/{language}.{target}"}}, ["generations.random", "lacks {draw}"]),
        ({"generations": {"none": "FOLDER/{language}.{target}"}}, ["generations.none", "unknown placeholder {target}"]),
        (
            {"generations": {"none": "FOLDER/{language}.jsonl", "deactivated": "x"}},
            ["generations.deactivated", "no variant", "deactivate"],
        ),
        ({"activations": {"path": "FOLDER/act.{language}", "sha256": HASH}}, ["activations.sha256", "several files"]),
        ({"activations": {"path": "FOLDER/act.{language}", "sha256": "abc"}}, ["activations.sha256", "a-fA-F]{64}"]),
        ({"activations": {"path": "FOLDER/act.{language}", "sha256": {"act.en": HASH, "act.dd": HASH}}},
         ["activations.sha256", "no checksum of 'act.de'", "act.en, act.dd"]),
        ({"activations": {"file": "FOLDER/act.{language}"}}, ["models.theirs.activations.file", "unknown"]),
        ({"activations": 3}, ["models.theirs.activations", "3"]),
        ({"masks": {"path": "FOLDER/mask.pth"}}, ["models.theirs.masks.languages", "missing"]),
        ({"masks": {"path": "FOLDER/{language}", "languages": ["en"]}}, ["models.theirs.masks", "unknown placeholder"]),
        ({"path": "x"}, ["models.theirs.path", "unknown"]),
        ({"replicates": "gpt-5"}, ["models.theirs.replicates", "gpt-5", "llama-2-7b"]),
    ],
)  # fmt: skip
def test_mistakes_are_named(files: Path, changes: dict[str, Any], words: list[str]) -> None:
    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(below) for key, below in value.items()}
        return value.replace("FOLDER", str(files)) if isinstance(value, str) else value

    with pytest.raises(UserError) as caught:
        validate(raw(files, **placed(copy.deepcopy(changes))))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_file_that_the_model_has_not(files: Path) -> None:
    assert "activations/fr" not in config.published_files(validate(raw(files)), "theirs")


def test_one_language_is_enough_where_none_are_compared(files: Path) -> None:
    settings = raw(files, activations=None)
    settings["run"]["languages"] = ["en"]
    assert config.contents(validate(settings), "theirs")["methods"] == ["published"]
    settings = raw(files)
    settings["run"]["languages"] = ["en"]
    with pytest.raises(ConfigError, match="entropy 0"):
        validate(settings)


def test_secrets_of_addresses_are_not_reported(files: Path) -> None:
    url = "https://name:word@example.org/act.{language}?token=abc"
    reported = config.reported(validate(raw(files, activations={"path": url})))
    assert reported["models"]["theirs"]["activations"]["path"] == "https://example.org/act.{language}"
    assert reported["models"]["theirs"]["masks"]["path"] == f"{files}/mask.pth"


def test_settings_of_models_that_run_are_not_reported_without_one(files: Path) -> None:
    reported = config.reported(validate(raw(files)))
    assert reported.keys() == {"run", "folder", "models", "identification", "perturbations", "metrics", "report"}
    settings = raw(files)
    settings["models"]["small"] = {"source": "demo", "architecture": "llama"}
    settings["run"]["models"] = ["small", "theirs"]
    assert {"seed", "corpora", "generation"} <= config.reported(validate(settings)).keys()


def test_missing_stop_words(files: Path) -> None:
    settings = raw(files) | {"metrics": {"stop_words": {"de": "nowhere/german"}}}
    with pytest.raises(ConfigError, match=r"metrics\.stop_words\.de.*'nowhere/german' does not exist"):
        validate(settings)


def test_a_mistake_is_a_users() -> None:
    assert issubclass(PublicationError, UserError)


@pytest.mark.parametrize("reference", references())
def test_every_reference_can_be_named(files: Path, reference: str) -> None:
    checked = validate(raw(files, replicates=reference))
    assert checked["models"]["theirs"]["replicates"] == reference


# -- the experiments that come with the project ------------------------------------------------------------------------

EXPERIMENTS = Path(__file__).parents[2] / "workflow" / "experiments"
SHAPES = {
    "llama-2-7b": (32, 3523), "llama-2-13b": (40, 5530), "llama-2-70b": (80, 22938), "bloom-7b1": (30, 4915),
    "opt-6.7b": (32, 5243), "mistral-7b": (32, 4588), "phi-2": (32, 3277),
}  # fmt: skip
"""Layers, and distinct neurons of the released masks: 1 % of all, which tells the number of neurons per layer."""


def test_masks_experiment_knows_the_models(tmp_path: Path) -> None:
    import yaml

    settings = yaml.safe_load((EXPERIMENTS / "masks.yaml").read_text())
    for entry in settings["models"].values():
        (tmp_path / Path(entry["masks"]["path"]).name).touch()
    checked = validate(settings | {"folder": str(tmp_path)})
    assert len(checked["run"]["models"]) == len(SHAPES)
    for entry in checked["models"].values():
        layers, distinct = SHAPES[entry["replicates"]]
        assert entry["layers"] == layers
        assert round(0.01 * layers * entry["neurons"]) == distinct
        assert config.contents(checked, "llama-2-7b-mask")["methods"] == ["published"]


def test_published_experiment_names_its_files(tmp_path: Path) -> None:
    import yaml

    settings = yaml.safe_load((EXPERIMENTS / "published.yaml").read_text())
    with pytest.raises(UserError, match="--config folder="):
        validate(settings)
    with pytest.raises(UserError, match=r"activation\.en\.train\.llama-7b' does not exist"):
        validate(settings | {"folder": str(tmp_path)})
