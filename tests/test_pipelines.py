"""The pipelines that come with the repository answer their question, at toy length."""

import os
import subprocess
import sys
from pathlib import Path

import factories
import pytest
from commandline import mllmtool
from suite_factory import colour_suite

PIPELINES = Path(__file__).parents[1] / "recipes" / "pipelines"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A pipeline, with this interpreter's `mllmtool` first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(PIPELINES / name), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tasks of two items."""
    return colour_suite(tmp_path_factory.mktemp("suite"), 2)


def test_forgot_repairs_measures_and_names_one(
    llava: Path, colours: Path, suite: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    flags = ["--samples", colours, "--lr", "1e-2", "--steps", "2", "--batch", "4"]
    assert mllmtool("finetune", "--model", llava, *flags, "--out", tuned).status == 0
    done = run("forgot.sh", llava, tuned, colours, suite, tmp_path / "out", "100pp")
    assert done.returncode == 0, done.stderr
    page, shipped = done.stdout.splitlines()[:2]
    assert Path(page).is_file()
    names = {"tuned", "wise-ft-0.5", "wise-ft-0.7", "wise-ft-0.9", "anchored-0.3", "anchored-1"}
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == names - {"tuned"} | {"evals"}
    assert shipped in names | {"base"}


def test_about_to_tune_mixes_plans_trains_and_measures(
    llava: Path, colours: Path, suite: Path, tmp_path: Path
) -> None:
    general = factories.colour_samples(tmp_path / "general")
    flags = ["--steps", "2", "--batch", "4", "--lr", "1e-2"]
    done = run("about-to-tune.sh", llava, colours, general, suite, tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).is_file()
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"mix", "plan.json", "tuned", "evals"}


def test_adapters_are_fused_measured_and_one_is_named(
    llava: Path, colours: Path, suite: Path, tmp_path: Path
) -> None:
    adapters = []
    for seed in (0, 1):
        flags = ["--samples", colours, "--train", "language=lora:2", "--lr", "1e-2", "--steps", "2"]
        tuned = tmp_path / f"run-{seed}"
        done = mllmtool("finetune", "--model", llava, *flags, "--seed", seed, "--out", tuned)
        assert done.status == 0, done.err
        adapters.append(tuned / "adapter-language")
    pipeline = run("adapters.sh", llava, suite, tmp_path / "out", *adapters)
    assert pipeline.returncode == 0, pipeline.stderr
    page, shipped = pipeline.stdout.splitlines()[:2]
    assert Path(page).is_file()
    names = {"alone-1", "alone-2", "linear", "ties", "dare-ties"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"evals"}
    assert shipped in names | {"base"}


@pytest.mark.parametrize("path", sorted(PIPELINES.iterdir()), ids=lambda path: path.name)
def test_pipeline_without_arguments_says_how_it_is_used(path: Path) -> None:
    done = run(path.name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"recipes/pipelines/{path.name} BASE" in done.stderr
