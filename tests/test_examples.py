"""What the README shows runs as shown: its `sh` blocks, on a tiny LLaVA."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from mllmtool.data.samples import read_samples
from mllmtool.data.suites import read_suite

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def write_suite(folder: Path, samples: Path) -> None:
    """One task of colours, and one that asks the same of other pictures."""
    items = [
        {
            "id": sample.id,
            "images": list(sample.images),
            "question": "What colour is this?",
            "options": ["red", "green", "blue"],
            "answer": number % 3,
        }
        for number, sample in enumerate(read_samples(samples))
        if sample.images
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    for name, text, role in (("colour", "id", "new"), ("shade", "ood", "original")):
        task = {
            "schema": "mllmtool.task/1",
            "name": name,
            "items": "items.jsonl",
            "quadrant": {"text": text, "image": "id"},
            "role": role,
            "type": "mcq",
            "answer": "letter",
            "prompt": "{question}\n{options}",
            "options_style": "{letter}. {text}",
            "max_new_tokens": 2,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    suite = {"schema": "mllmtool.suite/1", "tasks": ["colour.yaml", "shade.yaml"], "margin": 0.02}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))


def test_readme_blocks_run(tmp_path: Path, llava: Path, colours: Path) -> None:
    shutil.copytree(llava, tmp_path / "base")
    shutil.copytree(colours.parent, tmp_path, dirs_exist_ok=True)
    for name in ("mine.jsonl", "general.jsonl"):
        shutil.copy(colours, tmp_path / name)
    write_suite(tmp_path, tmp_path / "mine.jsonl")
    script = "set -euo pipefail\n" + "\n".join(blocks("sh"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "eval" / "report.html").is_file()
    ties = [
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("ft-ties", "ft-ties-again")
    ]
    assert ties[0] == ties[1]


def test_readme_task_is_a_task(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "task.yaml").write_text(text)
    item = {"id": "1", "question": "What?", "options": ["boot", "coat"], "answer": 0}
    (tmp_path / "garment-name.jsonl").write_text(json.dumps(item) + "\n")
    suite = {"schema": "mllmtool.suite/1", "tasks": ["task.yaml"], "margin": 0.02, "seed": 0}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    (task,) = read_suite(tmp_path / "suite.yaml").tasks
    assert task.file.name == "garment-name"


def test_readme_sample_is_a_sample(tmp_path: Path) -> None:
    (text,) = blocks("json")
    (tmp_path / "s.jsonl").write_text(text)
    assert [sample.id for sample in read_samples(tmp_path / "s.jsonl")] == ["1"]
