"""What is refused before anything runs: of the default config with a mistake in it, all that refer to other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from langneurons.errors import UserError
from langneurons.validation import validate

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
FINNISH = {"run": {"languages": ["en", "fi"]}, "corpora": {"languages": {"fi": {"source": "files", "path": "fi.txt"}}}}


def laid_over(config: Any, overlay: Any) -> Any:
    """The config with a file laid over it, as snakemake does it: mappings are merged, all else is replaced."""
    if isinstance(config, dict) and isinstance(overlay, dict):
        return config | {key: laid_over(config.get(key), value) for key, value in overlay.items()}
    return overlay


def refusal(overlay: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        validate(laid_over(DEFAULT, overlay))
    return str(caught.value)


def test_mistakes_end_with_a_message_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fi.txt").write_text("Hyvää päivää.")
    (tmp_path / "empty.txt").write_text("\n\n")
    gone = {"gone": {"source": "folder", "path": "models/gone"}}
    nowhere = {"de": {"source": "files", "path": "nowhere/*.txt"}}
    mistakes: list[tuple[dict[str, Any], list[str]]] = [
        ({"identification": {"top_rat": 0.1}}, ["identification.top_rat", "Did you mean 'top_rate'"]),
        ({"run": {"models": ["lama-demo"]}}, ["run.models[0]", "lama-demo", "llama-demo"]),
        ({"run": {"languages": ["en"]}}, ["run.languages", "entropy 0", "at least two"]),
        ({"run": {"languages": ["en", "fi"]}}, ["'fi' has no corpus", "corpora.languages.fi"]),
        ({"run": {"languages": ["en", False]}}, ["run.languages.1", "in quotes"]),
        (FINNISH, ["'fi' has no prompts", "generation.prompts.fi"]),
        ({"generation": {"prompts": {"de": "empty.txt"}}}, ["empty.txt", "'de' has no prompts", "one per line"]),
        ({"run": {"models": ["gone"]}, "models": gone}, ["models/gone", "does not exist"]),
        ({"corpora": {"languages": nowhere}}, ["'de'", "nowhere/*.txt"]),
    ]
    found = [(overlay, refusal(overlay), words) for overlay, words in mistakes]
    assert [(overlay, text) for overlay, text, words in found if not all(word in text for word in words)] == []
    assert [text for _, text, _ in found if "\n" in text] == []
