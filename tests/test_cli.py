"""The command line: exit status, the whole message, recipes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mllmtool.cli import COMMANDS
from mllmtool.configs.base import Config


def mllmtool(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mllmtool", *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


FAILURES = {
    "no flags": (["fuse"], "--base: is required; --model: is required; --method: is required"),
    "unknown flag": (
        ["fuse", "--bose", "b"],
        "No such option: --bose (Possible options: --base, --seed, --votes)",
    ),
    "not a number": (
        ["fuse", "--density", "much"],
        "Invalid value for '--density': Input should be a valid number,"
        " unable to parse string as a number",
    ),
    "out of range": (
        ["fuse", "--base", "b", "--model", "m", "--method", "ties", "--density", "7"],
        "--density: 7.0: input should be less than or equal to 1",
    ),
    "unknown choice": (
        ["fuse", "--base", "b", "--model", "m", "--method", "ties", "--parts", "audio"],
        "--parts (0): 'audio': input should be 'vision', 'projector' or 'language'",
    ),
    "no output": (
        ["mix-data", "--source", "a=a.jsonl:1", "--total", "3"],
        "--out: is required",
    ),
    "no such recipe": (
        ["fuse", "--recipe", "absent.yaml"],
        "--recipe: absent.yaml cannot be read: [Errno 2] No such file or directory: 'absent.yaml'",
    ),
    "a flag of the group before its command": (
        ["eval-matrix", "--batch", "4", "best", "--evals", "e", "--max-loss", "1pp"],
        "--batch: is of eval-matrix itself; write flags of best after it",
    ),
    "not in percentage points": (
        ["eval-matrix", "best", "--evals", "e", "--max-loss", "0.01"],
        "--max-loss: '0.01': is not in percentage points; write 1pp for a loss of 0.01",
    ),
    "no such command of a group": (
        ["eval-matrix", "bust"],
        "No such command 'bust'. Did you mean 'best'?",
    ),
    "no such command": (["fuze"], "No such command 'fuze'. Did you mean 'fuse'?"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_flags(case: str, tmp_path: Path) -> None:
    argv, message = FAILURES[case]
    done = mllmtool(*argv, cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (2, f"mllmtool: {message}\n", "")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_recipe_key_names_the_right_one(tmp_path: Path) -> None:
    recipe = {"base": "b", "model": ["m"], "method": "ties", "densty": 0.2}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    done = mllmtool("fuse", "--recipe", "r.yaml", "--out", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mllmtool: r.yaml: densty: unknown key; did you mean density?\n"


def test_a_recipe_with_a_key_twice(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("method: ties\nbase: b\nmethod: dare\n")
    done = mllmtool("fuse", "--recipe", "r.yaml", "--out", "x", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "mllmtool: --recipe: r.yaml cannot be read: line 3, column 1: method is given twice\n",
    )


def test_a_recipe_that_is_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- 1\n")
    done = mllmtool("fuse", "--recipe", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mllmtool: --recipe: r.yaml is not a mapping of keys to values\n"


BAD_RECIPES = {
    "finetune": (
        "train: full",
        "--train: 'full': is not a mapping of parts to full, frozen or lora",
    ),
    "mix-data": ("source: 5\ntotal: 3", "--source: 5: is not a list of sources"),
}


@pytest.mark.parametrize("command", BAD_RECIPES)
def test_a_recipe_value_of_the_wrong_kind(command: str, tmp_path: Path) -> None:
    text, message = BAD_RECIPES[command]
    (tmp_path / "r.yaml").write_text(text)
    done = mllmtool(command, "--recipe", "r.yaml", "--out", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert f"r.yaml: {message}" in done.stderr.replace(
        "--model: is required; --samples: is required; ", ""
    )
    assert done.stderr.count("\n") == 1


def test_a_recipe_that_is_half_a_report(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema": "mllmtool.report/1"}')
    done = mllmtool("fuse", "--recipe", "r.json", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == "mllmtool: r.json: is not a report of schema mllmtool.report/1\n"


def test_version() -> None:
    done = mllmtool("--version")
    assert (done.returncode, done.stdout) == (0, "mllmtool 0.1.0\n")


def fields() -> list[tuple[str, type[Config]]]:
    return [(name, row.config) for name, row in COMMANDS.items()]


@pytest.mark.parametrize(("name", "config"), fields())
def test_every_flag_says_what_it_is(name: str, config: type[Config]) -> None:
    assert config.__doc__, name
    for key, field in config.model_fields.items():
        assert field.description, f"{name}: {key}"
        assert not field.description.endswith("."), f"{name}: {key}"


def test_a_reader_that_leaves_early_is_no_error(llama: Path) -> None:
    script = f"set -o pipefail; {sys.executable} -m mllmtool diff {llama} {llama} --json | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in {0, 141}  # 141: the pipe was closed before the first line
