"""The recipes that come with the repository are what their commands accept."""

import json
from pathlib import Path

import pytest
import yaml
from commandline import mllmtool

from mllmtool.configs.finetune import FinetuneConfig

RECIPES = Path(__file__).parents[1] / "recipes"
PRESETS = sorted((RECIPES / "finetune").glob("*.yaml"))
# Of each preset, which tensors of the tiny LLaVA learn: parts, and the layers that are named.
LEARNING = {
    "attention-only": {"language": 8},
    "gate-up": {"language": 4},
    "inc-lora": {"language": 14, "projector": 4},
    "projector": {"projector": 4},
    "safe-full": {"language": 21},
    "safe-lora": {"language": 14},
    "seq-full": {"language": 21, "projector": 4},
    "unsafe-full": {"language": 21},
    "vision": {"vision": 39},
    "vision-projector": {"projector": 4, "vision": 39},
}


def test_every_preset_is_expected() -> None:
    assert {path.stem for path in PRESETS} == set(LEARNING)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_names_the_row_that_it_mirrors_and_says_no_more_than_the_recipe(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert "arXiv 2603.14493" in text or "arXiv 2510.08564" in text
    FinetuneConfig.parse({"model": "m", "samples": "s", **yaml.safe_load(text)})


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_plans_on_a_real_model_and_flags_win(path: Path, llava: Path, colours: Path) -> None:
    flags = ["--recipe", path, "--model", llava, "--samples", colours, "--dry-run", "--quiet"]
    done = mllmtool("finetune", *map(str, flags), "--steps", "7")
    assert done.status == 0, done.err
    shown = json.loads(done.out)
    assert shown["steps"] == 7
    learning = {part: row["tensors_learning"] for part, row in shown["parts"].items()}
    assert {part: number for part, number in learning.items() if number} == LEARNING[path.stem]
