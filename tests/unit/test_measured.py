"""Which files measuring jobs make, and which of them Snakemake follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langneurons import artifacts, measured
from langneurons.errors import UserError
from langneurons.measured import Measurements
from langneurons.validation import validate
from langneurons.variants import ANSWERS, PERPLEXITY, Job

LANGUAGES = ["en", "de"]
OFF = Job("off", "off", ("off-en", "off-de"))


def checked(follow: str = "auto", draws: int = 1) -> dict[str, Any]:
    """Two models, one of them published; `off` is measured both ways, `any` by perplexity alone."""
    return validate(
        {
            "run": {"models": ["small", "theirs"], "languages": LANGUAGES, "perturbations": ["off", "any"]},
            "models": {
                "small": {"source": "demo", "architecture": "llama"},
                "theirs": {
                    "source": "published",
                    "generations": {
                        "none": {"path": "https://example.org/{language}"},
                        "off": {"path": "https://example.org/{language}-{target}"},
                    },
                },
            },
            "perturbations": {
                "off": {"kind": "deactivate"},
                "any": {"kind": "random", "draws": draws, "measure": ["perplexity"]},
            },
            "follow": follow,
        }
    )


def test_files_go_by_perturbation_then_language() -> None:
    found = Measurements(checked())
    assert found.files("small", ANSWERS) == [
        f"results/small/generations/{name}/{language}.jsonl"
        for name in ("none", "off-en", "off-de")
        for language in LANGUAGES
    ]
    assert found.files("small", PERPLEXITY, ["off-de"]) == [
        "results/small/perplexity/off-de/en.parquet",
        "results/small/perplexity/off-de/de.parquet",
    ]
    assert len(found.files("small", PERPLEXITY)) == 5 * 2
    assert found.files("theirs", PERPLEXITY) == []


def test_every_file_is_followed() -> None:
    found = Measurements(checked("files"))
    assert found.outputs("small", ANSWERS, OFF) == found.files("small", ANSWERS, ["off-en", "off-de"])
    assert found.inputs("small", ANSWERS) == found.files("small", ANSWERS)
    every = [
        file for model in ("small", "theirs") for kind in (PERPLEXITY, ANSWERS) for file in found.files(model, kind)
    ]
    assert found.wanted() == every
    assert len(every) == 10 + 6 + 6


def test_jobs_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests of own models; files of published ones, and those that somebody deleted after the job had ended."""
    monkeypatch.chdir(tmp_path)
    found = Measurements(checked("jobs"))
    manifests = [f"results/small/perplexity/{name}.json" for name in ("none", "off", "any")]
    manifests += [f"results/small/generations/{name}.json" for name in ("none", "off")]
    assert found.inputs("small", PERPLEXITY) == manifests[:3]
    assert found.inputs("theirs", ANSWERS) == found.files("theirs", ANSWERS)
    assert found.wanted() == manifests + found.files("theirs", ANSWERS)
    assert found.outputs("small", ANSWERS, OFF) == []  # nothing is missing of a job that has not ended
    files = [Path(name) for name in found.files("small", ANSWERS, OFF.members)]
    for path in files:
        artifacts.write_records(path, "generations", [])
    manifest = measured.manifest("small", ANSWERS, OFF)
    artifacts.write_manifest(manifest, files)
    assert found.outputs("small", ANSWERS, OFF) == []
    files[1].unlink()
    files[2].unlink()
    files[3].unlink()
    files[3].parent.rmdir()
    assert found.outputs("small", ANSWERS, OFF) == [str(path) for path in files[1:]]
    assert found.wanted() == manifests + found.files("theirs", ANSWERS) + [str(path) for path in files[1:]]
    assert found.inputs("small", ANSWERS) == manifests[3:]


@pytest.mark.parametrize(("draws", "jobs"), [(6_247, False), (6_248, True)])
def test_very_many_files_are_not_followed(draws: int, jobs: bool) -> None:
    """Two languages with twice as many draws, read in two languages, and 18 files beside them."""
    found = Measurements(checked(draws=2 * draws))
    number = sum(len(found.files(model, kind)) for model in ("small", "theirs") for kind in (PERPLEXITY, ANSWERS))
    assert number == 8 * draws + 18
    assert (number > measured.MANY) == jobs
    assert found.follows_jobs == jobs


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UserError, match="config key 'follow'"):
        checked("everything")


# -- manifests ---------------------------------------------------------------------------------------------------------


def test_a_manifest_changes_when_a_file_does(tmp_path: Path) -> None:
    files = [tmp_path / "off-en" / "de.jsonl", tmp_path / "off-de" / "de.jsonl"]
    for path in files:
        artifacts.write_records(path, "generations", [{"id": path.parent.name}])
    manifest = tmp_path / "off.json"
    artifacts.write_manifest(manifest, files)
    first = manifest.read_bytes()
    artifacts.write_manifest(manifest, reversed(files))
    assert manifest.read_bytes() == first
    artifacts.write_records(files[0], "generations", [{"id": "other"}])
    artifacts.write_manifest(manifest, files)
    assert manifest.read_bytes() != first
    names = artifacts.read_document(manifest, "manifest")["files"]
    assert sorted(names) == ["off-de/de.jsonl", "off-en/de.jsonl"]
    artifacts.verify(manifest)


def test_what_makes_a_file_anew(tmp_path: Path) -> None:
    """The manifest that names it; the file itself where none does, or where its manifest is damaged."""
    files = [tmp_path / name / "de.jsonl" for name in ("off-en", "none", "other")]
    for path in files:
        artifacts.write_records(path, "generations", [])
    artifacts.write_manifest(tmp_path / "off.json", files[:1])
    artifacts.write_manifest(tmp_path / "none.json", files[1:2])
    assert [artifacts.target_of(path) for path in files] == [tmp_path / "off.json", tmp_path / "none.json", files[2]]
    (tmp_path / "none.json").write_text("{")
    assert artifacts.target_of(files[1]) == files[1]
