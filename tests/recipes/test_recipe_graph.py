"""The recipes' graph: what is listed, refused and made for one seed, without making it."""

import os
import subprocess

import pytest
from scripts import RECIPES

FIGURES = ("fig2", "fig3", "fig4a", "fig4b")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """GNU make on the recipes, by itself: a make that runs these tests hands nothing down."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-C", str(RECIPES), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=inherited, check=False)


def test_list_names_what_all_makes() -> None:
    listed = {line.split()[0] for line in make("-s", "list").stdout.splitlines()}
    assert {"all", "demo", "hybrid", "compare", "continual", *FIGURES} <= listed


def test_unknown_scale_is_refused() -> None:
    done = make("list", "SCALE=small")
    assert done.returncode == 2
    assert "SCALE: small is neither toy nor smoke; give one of the two" in done.stderr


@pytest.mark.parametrize("figure", FIGURES)
def test_figure_ends_with_its_script_on_evaluations_of_its_runs(figure: str) -> None:
    planned = make("-n", figure, "SEED=77", "FIG4_SEEDS=77", "JOBS=1")
    assert planned.returncode == 0, planned.stderr
    lines = planned.stdout.replace("\\\n", "").splitlines()
    assert any(f"figures/{figure}.py toy build/figures/" in line for line in lines)
    evaluated = next(line for line in lines if "eval-matrix --suite" in line and figure in line)
    checkpoints = evaluated.count("--checkpoint ")
    assert checkpoints == {"fig2": 72, "fig3": 3, "fig4a": 5, "fig4b": 9}[figure]
    tuned = sum(" finetune " in line for line in lines)
    assert tuned == {"fig2": 24, "fig3": 3, "fig4a": 5, "fig4b": 9}[figure]


def test_sequence_starts_each_stage_from_its_own_chain() -> None:
    planned = make("-n", "continual", "SEED=77", "JOBS=1")
    assert planned.returncode == 0, planned.stderr
    lines = planned.stdout.replace("\\\n", "").splitlines()
    run = "build/continual/toy-77"

    def models(name: str) -> list[str]:
        line = next(line for line in lines if line.endswith(f"--out {run}/{name}"))
        return [word for word in line.split() if word.startswith(("demo/base", f"{run}/"))][:-1]

    assert models("full/garment") == ["demo/base"]
    assert models("full-replay/garment-digit")[0] == f"{run}/full/garment"
    assert models("full-replay/garment-digit-shape") == [
        f"{run}/full-replay/garment-digit",
        f"{run}/replay/garment-digit-shape/samples.jsonl",
    ]
    assert models("tuned/digit-shape")[0] == f"{run}/wise-ft/digit"
    assert models("wise-ft/digit") == ["demo/base", f"{run}/high/digit"]
    assert models("wise-ft/digit-shape") == [f"{run}/wise-ft/digit", f"{run}/tuned/digit-shape"]
    replayed = next(line for line in lines if line.endswith(f"--out {run}/replay/shape-garment"))
    names = [word.partition("=")[0] for word in replayed.split() if "=" in word]
    assert names == ["shape", "garment"]  # in the true order: the last is the stage's own
    assert sum(" finetune " in line for line in lines) == 55
    assert sum(" eval-matrix " in line for line in lines) == 22
