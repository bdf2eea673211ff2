"""Models that others ran: from their files or addresses to the report; what is wrong in such files is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from langneurons import artifacts
from workflow.conftest import AGGREGATES, READ_PAGE, ROOT, Project, copy_project
from workflow.test_mistakes import message_of

pytestmark = pytest.mark.full

REFERENCE = Path(os.environ.get("LANGNEURONS_REFERENCE", ROOT.parent / "shared" / "reference"))
EXPERIMENTS = ROOT / "workflow" / "experiments"
LANGUAGES = ["en", "de", "tr"]

ENGLISH = "The old man walked slowly along the river and thought about his daughter, who lived far away."
GERMAN = "Der alte Mann ging langsam am Fluss entlang und dachte an seine Tochter, die weit weg wohnte."
TURKISH = "Yaşlı adam nehir boyunca yavaşça yürüdü ve uzaklarda yaşayan kızını düşündü, sonra evine döndü."
ANSWERS = {"en": ENGLISH, "de": GERMAN, "tr": TURKISH}

LAYERS, NEURONS, TOKENS = 8, 50, 4096


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project that knows no config but those of these tests."""
    return replace(copy_project(tmp_path_factory.mktemp("published") / "langneurons").warmed(), config={})


# -- the published results of LLaMA-2-7B -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The published files of LLaMA-2-7B, analysed to the end."""
    if not (REFERENCE / "activations").is_dir():
        pytest.skip(f"no published data in {REFERENCE}; name their folder in LANGNEURONS_REFERENCE")
    config = yaml.safe_load((EXPERIMENTS / "published.yaml").read_text()) | {"folder": str(REFERENCE)}
    project = copy_project(tmp_path_factory.mktemp("replicated") / "langneurons").warmed()
    project.config = config
    project.run()
    return project


def test_llama_2_7b_from_published_files(replicated: Project) -> None:
    results = replicated.folder / "results"
    summary = artifacts.read_document(results / "llama-2-7b-published/neurons/lape.json", "selection")
    assert summary["count_by_language"] == {"en": 80, "de": 1186, "tr": 2387}
    assert summary["selected"] == 3523
    assert round(summary["activation_bar"], 7) == 0.6512024
    assert (round(summary["entropy_min"], 6), round(summary["entropy_max"], 6)) == (0.041636, 0.957964)
    percentiles = {"en": 0.5280590057, "de": 0.6435436010, "tr": 0.7302824855}
    assert summary["percentile_by_language"] == pytest.approx(percentiles, abs=1e-9)
    text = pd.read_csv(results / "tables/text.csv").set_index(["perturbation", "language"])
    assert len(text) == 12
    assert text["outputs"].unique().tolist() == [70]
    expected = {
        "none": [(780.600, 0.408), (1327.300, 0.203), (471.114, 0.008)],
        "deactivate-en": [(940.629, 0.390), (1252.457, 0.195), (536.686, 0.029)],
        "deactivate-de": [(1345.214, 0.432), (1295.400, 0.205), (314.014, 0.002)],
        "deactivate-tr": [(1569.071, 0.316), (833.957, 0.102), (453.400, 0.003)],
    }
    for perturbation, cells in expected.items():
        for language, (characters, ratio) in zip(LANGUAGES, cells, strict=True):
            row = text.loc[(perturbation, language)]
            assert round(row["mean_characters"], 3) == characters
            assert round(row["stop_word_ratio"], 3) == ratio


def test_replication_is_shown_row_by_row(replicated: Project) -> None:
    table = pd.read_csv(replicated.folder / "results/tables/replication.csv")
    compared = table[table["ours"].notna()]
    assert compared.groupby("quantity").size().to_dict() == {
        "mean_characters": 12,
        "stop_word_ratio": 12,
        "percentile": 3,
        "selected": 1,
        "activation_bar": 1,
        "neurons": 3,
        "entropy_min": 1,
        "entropy_max": 1,
    }
    assert (compared["agrees"].astype(str) == "True").all()
    page = (replicated.folder / "results/report/report.html").read_text()
    assert "24 of 24 rows of length and stop-word ratio agree to the printed digits." in page


def test_audit_of_the_published_files(replicated: Project) -> None:
    """Turkish prompts are mostly answered in English, and the languages have unequal amounts of text."""
    table = pd.read_csv(replicated.folder / "results/tables/audit.csv")
    warned = table[table["severity"].isin(["warning", "fatal"])]
    assert warned[["check", "severity", "cell"]].fillna("").values.tolist() == [
        ["baseline-language", "warning", "tr"],
        ["token-budgets", "warning", ""],
    ]
    assert "23% of the 70" in warned["sentence"].iloc[0]


def test_second_analysis_does_nothing_and_a_changed_list_reruns_the_scores(replicated: Project, tmp_path: Path) -> None:
    assert replicated.stale() == {}
    (tmp_path / "turkish").write_text("ve\nbir\n")
    overlay = {"metrics": {"stop_words": {"tr": str(tmp_path / "turkish")}}}
    expected = {"score_text": 1, "test_effects": 1, "audit_results": 1, **AGGREGATES, "plot_figures": 1}
    assert replicated.stale(config=overlay) == expected


# -- a small model with everything wrong that the replication had wrong ---------------------------------------------


def write_model(folder: Path, wrong: bool = False) -> dict:
    """Files of a published model in three languages, and their config. Sound ones, or with every known defect."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    common = generator.beta(0.5, 3, (LAYERS, NEURONS)) / 2
    for number, language in enumerate(LANGUAGES):
        own = np.where(np.arange(NEURONS) % 25 == number, 0.9, 0.0)  # neurons 0 and 25 are of en, 1 and 26 of de
        tokens = TOKENS + 10 * number
        active = np.clip(np.maximum(common, own), 0, 1) * tokens
        if wrong:  # nine times as many tokens of padding, on which a third of the neurons are active
            active = np.clip(common + own / 2, 0, 1) * TOKENS + (np.arange(NEURONS) % 3 == 0) * 9 * TOKENS
            tokens = 10 * TOKENS
        over_zero = torch.from_numpy(active.astype(np.int32))
        torch.save({"n": tokens, "over_zero": over_zero}, folder / f"activation.{language}")
        for target in ["", *(f".off.{target}" for target in LANGUAGES)]:
            answer = ENGLISH if wrong else ANSWERS[language]
            text = answer if wrong or not target else answer.split(",")[0] + target[-2:]
            rows = [{"input": f"Q: {language} {row}\nA:", "output": f"{text} {row}"} for row in range(4)]
            (folder / f"{language}{target}.jsonl").write_text(json.dumps(rows))
    sizes = [30, 30, 30] if wrong else [7, 12, 20]
    rows = [np.sort(generator.choice(LAYERS * NEURONS // (3 if wrong else 1), size, replace=False)) for size in sizes]
    mask = [[torch.from_numpy(row[row // NEURONS == layer] % NEURONS) for layer in range(LAYERS)] for row in rows]
    torch.save(mask, folder / "mask.pth")
    return {
        "run": {"models": ["theirs"], "languages": LANGUAGES, "perturbations": ["deactivate"]},
        "models": {
            "theirs": {
                "source": "published",
                "layers": LAYERS,
                "neurons": NEURONS,
                "activations": f"{folder}/activation.{{language}}",
                "generations": {
                    "none": f"{folder}/{{language}}.jsonl",
                    "deactivate": f"{folder}/{{language}}.off.{{target}}.jsonl",
                },
                "masks": {"path": f"{folder}/mask.pth", "languages": ["en", "zh", "tr"]},
            }
        },
        "identification": {"top_rate": 0.12},
    }


def findings_of(project: Project) -> pd.DataFrame:
    table = pd.read_csv(project.folder / "results/tables/audit.csv")
    return table[table["severity"].isin(["warning", "fatal"])].fillna("")


def test_sound_files_pass_the_audit(empty: Project, tmp_path: Path) -> None:
    empty.run(*READ_PAGE, config=write_model(tmp_path))
    assert findings_of(empty).values.tolist() == []
    neurons = pd.read_csv(empty.folder / "results/tables/neurons.csv")
    table, _ = artifacts.read_table(empty.folder / "results/theirs/neurons/lape.parquet", "neurons")
    for number, language in enumerate(LANGUAGES):  # two in each of the 8 layers are its own
        found = table.loc[(table["language"] == language) & (table["neuron"] % 25 == number), "layer"]
        assert found.tolist() == [layer for layer in range(LAYERS) for _ in range(2)]
    published = neurons[neurons["method"] == "published"]
    assert dict(zip(published["language"], published["neurons"], strict=True)) == {"en": 7, "zh": 12, "tr": 20}
    overlaps = pd.read_csv(empty.folder / "results/tables/overlaps.csv")
    pairs = overlaps[overlaps["method"] != overlaps["other_method"]]
    assert pairs[["method", "language", "other_method", "other_language"]].values.tolist() == [
        ["lape", "en", "published", "en"],
        ["lape", "tr", "published", "tr"],
    ]


def test_every_defect_of_the_replication_is_named(empty: Project, tmp_path: Path) -> None:
    """The run ends well, since others made the files; the report says what is wrong with them."""
    empty.run(*READ_PAGE, config=write_model(tmp_path, wrong=True))
    found = {(row.check, row.severity, row.cell) for row in findings_of(empty).itertuples()}
    cells = {(f"deactivate-{target}/{language}") for target in LANGUAGES for language in LANGUAGES}
    assert found == {
        ("effect", "fatal", "deactivate"),
        *{("effect", "warning", cell) for cell in cells},
        ("joint-identification", "warning", "published"),
        ("activation-profiles", "warning", "lape"),
        ("padding", "warning", ""),
        ("baseline-language", "warning", "de"),
        ("baseline-language", "warning", "tr"),
    }
    page = (empty.folder / "results/report/report.html").read_text()
    assert "The perturbation did nothing" in page
    assert "Was padding counted?" in page


@pytest.mark.parametrize(
    ("part", "there", "absent"),
    [
        ("activations", "neurons/lape.parquet", "metrics"),
        ("generations", "metrics/text.parquet", "neurons"),
        ("masks", "neurons/published.parquet", "metrics"),
    ],
)
def test_any_part_alone_is_enough(empty: Project, tmp_path: Path, part: str, there: str, absent: str) -> None:
    config = write_model(tmp_path)
    model = config["models"].pop("theirs")
    name = f"only-{part}"
    config["models"][name] = {key: model[key] for key in ("source", "layers", "neurons", part)}
    config["run"]["models"] = [name]
    empty.run(*(READ_PAGE if part != "masks" else ()), config=config)  # of the least there are print and notebook, too
    assert (empty.folder / "results" / name / there).exists()
    assert not (empty.folder / "results" / name / absent).exists()
    page = (empty.folder / "results/report/report.html").read_text()
    assert f"Perplexity is not part of the published files of {name}." in page
    assert ("hold no answers" in page) == (part != "generations")


def test_own_and_published_models_side_by_side(finished: Project, tmp_path: Path) -> None:
    """Nothing of the own models is run again for the sake of the published one."""
    config = write_model(tmp_path)
    config["run"] |= {"models": ["tiny-llama", "tiny-gpt2", "theirs"], "languages": ["en", "de"]}
    del config["identification"]
    config["run"]["perturbations"] = ["deactivate", "random", "steer"]
    assert finished.stale(config=config) == {
        "import_activations": 1,
        "import_neurons": 1,
        "import_generations_theirs": 1,
        "identify_neurons": 1,
        "score_text": 1,
        "test_effects": 1,
        "audit_results": 1,
        **AGGREGATES,
        "plot_figures": 3,
    }
    project = finished.copied(tmp_path / "langneurons")
    project.run(*READ_PAGE, config=config)
    tables = {
        name: pd.read_csv(project.folder / "results/tables" / f"{name}.csv")
        for name in ("text", "perplexity", "audit", "recordings")
    }
    assert set(tables["perplexity"]["model"]) == {"tiny-llama", "tiny-gpt2"}
    assert {name: len(rows) for name, rows in tables["text"].groupby("model")} == {
        "tiny-llama": 9 * 2,
        "tiny-gpt2": 9 * 2,
        "theirs": 3 * 2,
    }
    assert set(tables["audit"]["model"]) == set(tables["recordings"]["model"]) == set(config["run"]["models"])
    page = (project.folder / "results/report/report.html").read_text()
    assert "Perplexity is not part of the published files of theirs." in page
    assert "Not among those of theirs: perplexity, answers under random and answers under steer." in page


# -- addresses ---------------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine; the folder that it serves is `tmp_path / served`."""
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def by_address(folder: Path, address: str, name: str) -> dict:
    """A model whose recordings and mask are downloaded, with their checksums."""
    config = write_model(folder)
    model = {key: config["models"]["theirs"][key] for key in ("source", "layers", "neurons")}
    checksums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [folder / "mask.pth", *(folder / f"activation.{language}" for language in LANGUAGES)]
    }
    mask = {"path": f"{address}/mask.pth", "languages": ["en", "zh", "tr"], "sha256": checksums.pop("mask.pth")}
    model |= {"activations": {"path": f"{address}/activation.{{language}}", "sha256": checksums}, "masks": mask}
    return config | {"run": config["run"] | {"models": [name]}, "models": {name: model}}


def test_files_are_downloaded_once(empty: Project, tmp_path: Path, server: str) -> None:
    config = by_address(tmp_path / "served", server, "remote")
    checksum = config["models"]["remote"]["masks"].pop("sha256")
    targets = ["results/remote/neurons/lape.json", "results/remote/neurons/published.json"]
    empty.run(*targets, config=config)
    results = empty.folder / "results/remote"
    for name, file in (("masks", "mask.pth"), ("activations/de", "activation.de")):
        assert (results / "published" / name).read_bytes() == (tmp_path / "served" / file).read_bytes()
    assert artifacts.read_document(results / "neurons/published.json", "selection")["selected"] > 30
    shutil.rmtree(tmp_path / "served")
    assert empty.stale(*targets, config=config) == {}
    # A checksum that is given later is verified on what was downloaded, without the server.
    config["models"]["remote"]["masks"]["sha256"] = checksum
    empty.run(*targets, config=config)


def test_wrong_checksum_of_a_download(empty: Project, tmp_path: Path, server: str) -> None:
    config = by_address(tmp_path / "served", server, "altered")
    config["models"]["altered"]["masks"]["sha256"] = "0" * 64
    output = empty.mistake("results/altered/neurons/published.parquet", config=config)
    message = message_of(output)
    assert all(word in message for word in (f"{server}/mask.pth", "0" * 64, "sha256")), message
    assert "Traceback" not in output
    assert not (empty.folder / "results/altered/published/masks").exists()


def test_missing_at_the_address(empty: Project, tmp_path: Path, server: str) -> None:
    config = by_address(tmp_path / "served", server, "gone")
    (tmp_path / "served" / "activation.tr").unlink()
    output = empty.mistake("results/gone/neurons/lape.parquet", config=config)
    message = message_of(output)
    assert all(word in message for word in (f"{server}/activation.tr", "404")), message


# -- mistakes ----------------------------------------------------------------------------------------------------------


def spoil(folder: Path, what: str) -> None:
    """Make one file of a sound model unusable."""
    recording = torch.load(folder / "activation.de", weights_only=True)
    mask = torch.load(folder / "mask.pth", weights_only=True)
    answers = json.loads((folder / "de.off.en.jsonl").read_text())
    match what:
        case "shape":
            torch.save({**recording, "over_zero": recording["over_zero"][:, :7]}, folder / "activation.de")
        case "index":
            mask[1][2] = torch.tensor([3, NEURONS])
            torch.save(mask, folder / "mask.pth")
        case "fewer":
            (folder / "de.off.en.jsonl").write_text(json.dumps(answers[:3]))


@pytest.mark.parametrize(
    ("what", "words"),
    [  # one of each script; tests/unit/test_published.py has all mistakes
        ("shape", ["activation.de", "8 layers of 7 neurons", "8 layers of 50 neurons"]),
        ("index", ["mask.pth", "'zh', layer 2", "index 50", "0 to 49"]),
        ("fewer", ["de.off.en.jsonl", "de.jsonl", "entry 4", "3 and 4 entries"]),
    ],
)
def test_unusable_file(empty: Project, tmp_path: Path, what: str, words: list[str]) -> None:
    config = write_model(tmp_path)
    config["models"]["spoilt"] = config["models"].pop("theirs")
    config["run"]["models"] = ["spoilt"]
    spoil(tmp_path, what)
    output = empty.mistake("--keep-going", config=config)
    message = message_of(output)
    assert all(word in message for word in words), message
    assert "Traceback" not in output
    results = empty.folder / "results" / "spoilt"
    assert not list(results.rglob("*.tmp"))
    assert not (results / "audit.json").exists()
    shutil.rmtree(results)


def test_missing_file_is_said_in_the_dry_run(empty: Project, tmp_path: Path) -> None:
    config = write_model(tmp_path)
    (tmp_path / "activation.tr").unlink()
    message = message_of(empty.mistake("-n", config=config))
    assert all(word in message for word in ("models.theirs", "activation.tr", "does not exist")), message


# -- masks alone -------------------------------------------------------------------------------------------------------


def test_experiment_on_masks_alone(empty: Project, tmp_path: Path) -> None:
    """Two of its models, with masks of the released sizes: the released numbers of neurons agree."""
    config = yaml.safe_load((EXPERIMENTS / "masks.yaml").read_text()) | {"folder": str(tmp_path)}
    config["run"]["models"] = ["phi-2-mask", "bloom-7b1-mask"]
    counts = {"Phi-2": [52, 196, 1032, 1119, 511, 764], "BLOOM-7B1": [445, 653, 680, 918, 551, 2823]}
    generator = np.random.default_rng(0)
    for (name, sizes), layers in zip(counts.items(), (32, 30), strict=True):
        chosen = [generator.choice(layers * 10240, size, replace=False) for size in sizes]
        mask = [[torch.from_numpy(row[row // 10240 == layer] % 10240) for layer in range(layers)] for row in chosen]
        torch.save(mask, tmp_path / f"{name}.neuron.pth")
    empty.run(*READ_PAGE, config=config)
    table = pd.read_csv(empty.folder / "results/tables/replication.csv")
    own = table[(table["quantity"] == "neurons") & table["ours"].notna()]
    assert len(own) == 12
    assert (own["agrees"].astype(str) == "True").all()
    for model in config["run"]["models"]:
        for figure in ("layer_profile", "neuron_overlap"):
            assert (empty.folder / "results/figures" / model / f"{figure}.svg").stat().st_size > 10_000
    overlaps = pd.read_csv(empty.folder / "results/tables/overlaps.csv")
    assert overlaps.groupby("model").size().tolist() == [15, 15]  # pairs of six languages


# -- the audit of own runs ---------------------------------------------------------------------------------------------


def test_own_run_without_effect_ends_with_an_error_after_the_report(finished: Project, tmp_path: Path) -> None:
    """As if the edits had gone to a copy: every output of a variant is the baseline's."""
    project = finished.copied(tmp_path / "langneurons")
    results = project.folder / "results"
    for kind, suffix in (("perplexity", "parquet"), ("generations", "jsonl")):
        for target in ("en", "de"):
            for language in ("en", "de"):
                source = results / "tiny-gpt2" / kind / "none" / f"{language}.{suffix}"
                shutil.copy(source, results / "tiny-gpt2" / kind / f"deactivate-{target}" / f"{language}.{suffix}")
    (results / "report" / "report.html").unlink()
    output = project.mistake()
    message = message_of(output)
    words = ("1 fatal fault", "tiny-gpt2: Nothing changed under any perturbation of deactivate", "report.html")
    assert all(word in message for word in words), message
    assert "Traceback" not in output
    assert (results / "report" / "report.html").exists()
    assert not (results / "report" / "audit.txt").exists()
