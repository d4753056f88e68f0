"""What recipes/paper/README.md tells to run, runs: on ten items a dataset and on tiny models.

Steps that would train, tailor, fuse or evaluate are run with `--dry-run`; the checkpoint that one
would make is then a tiny one of the same family.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import clip_factory
import factories
import families
import paper_data
import pytest
import transformers
from commandline import mllmtool
from safetensors.torch import load_file, save_file
from scripts import RECIPES, script

from mllmtool.data.suites import read_suite

README = (RECIPES / "paper/README.md").read_text()
MADE = ("finetune", "tailor", "fuse")  # what makes a checkpoint
DRY = ("--dry-run", "--quiet")
EXTRA = {"mix-data": ("--total", "20", "--quiet"), "build-vqa": ("--quiet",), "check": ()}
SHORT = ("--max-repeat", "2", "--quiet")  # ten rows are asked for twenty
BLOCKS = 32  # of LLaVA-1.5's language model, the last twelve of which are tuned


class Told(NamedTuple):
    """A command of the README, its variables filled in, and what it printed."""

    words: list[str]
    out: str


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and models, as the README wants it."""
    root = paper_data.write_all(tmp_path_factory.mktemp("paper"))
    models = root / "models"
    clip_factory.tiny_clip(models / "clip-vit-large-patch14")
    families.tiny_qwen2_5_vl(models / "Qwen2.5-VL-3B-Instruct")
    families.tiny_instructblip(models / "instructblip-vicuna-7b")
    deep_llava(models / "llava-1.5-7b-hf")
    return root


@pytest.fixture(scope="module")
def told(work: Path) -> list[Told]:
    """All commands of the README, run in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        return [Told(words, run(words, patch)) for words in commands()]


def deep_llava(path: Path) -> None:
    """A tiny LLaVA with as many language blocks as the real one."""
    factories.tiny_llava(path)
    config = transformers.LlavaConfig.from_pretrained(path)
    config.text_config.num_hidden_layers = BLOCKS
    processor = transformers.LlavaProcessor.from_pretrained(path)
    factories.save(transformers.LlavaForConditionalGeneration, config, processor, path, seed=0)


def commands() -> Iterator[list[str]]:
    """Those of the `sh` blocks as words, variables filled in as a shell does."""
    variables = {"R": str(RECIPES / "paper")}
    for block in re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            filled = re.sub(r"\$(\w+)", lambda found: variables[found[1]], line)
            assigned = re.fullmatch(r"(?:export )?(\w+)=(.*)", filled)
            if assigned is None:
                yield shlex.split(filled)
            elif assigned[1] != "R":
                (variables[assigned[1]],) = shlex.split(assigned[2])


def run(words: list[str], patch: pytest.MonkeyPatch) -> str:
    """Run a command of the README in this process, far enough to see that it is right."""
    program, *arguments = words
    if program == "cp":
        shutil.copytree(arguments[1], arguments[2])
        return ""
    if program == "python":
        patch.setattr("sys.argv", arguments)
        script("paper/convert").main()
        return ""
    if program == "bash":
        assert Path(arguments.pop(0)).resolve() in (RECIPES / "launch").iterdir()
    kind = "check" if "check" in arguments else arguments[0]
    done = mllmtool(*arguments, *(SHORT if "replay" in arguments else EXTRA.get(kind, DRY)))
    assert done.status == 0, f"{shlex.join(words)}: {done.err}"
    if kind in MADE:
        make_tuned(arguments)
    return done.out


def make_tuned(arguments: list[str]) -> None:
    """Put a checkpoint where one would have been made: its base's, with other weights."""
    base = next(
        arguments.index(flag) for flag in ("--base", "--pre", "--model") if flag in arguments
    )
    out = Path(arguments[arguments.index("--out") + 1])
    shutil.copytree(arguments[base + 1], out)
    weights = load_file(out / "model.safetensors")
    changed = {name: tensor * 1.01 for name, tensor in weights.items()}
    save_file(changed, out / "model.safetensors", metadata={"format": "pt"})


def plans(told: list[Told], command: str) -> dict[str, Any]:
    """What the dry runs of a command printed, by their `--out`."""
    return {
        each.words[each.words.index("--out") + 1]: json.loads(each.out)
        for each in told
        if command in each.words and "check" not in each.words
    }


def test_every_class_set_ends_as_the_papers_prompt(work: Path, told: list[Told]) -> None:
    assert told
    asked = {
        "imagenet-train": "What is the class of this image?",
        "imagenetv2": "What is the class of this image?",
        "flowers102-train": "What is the class of this image?",
        "caltech101-test": "What is the object category in this image?",
        "stanford-cars-test": "What is the make and model of the car in this image?",
    }
    for name, question in asked.items():
        first = json.loads((work / f"vqa/{name}/samples.jsonl").read_text().splitlines()[0])
        prompt, answer = (turn["content"] for turn in first["messages"])
        head = f"<image>\n{question} Please answer with a single letter (A, B, C or D).\n"
        assert re.fullmatch(re.escape(head) + r"A\. .+\nB\. .+\nC\. .+\nD\. .+", prompt)
        assert answer in "ABCD"


def test_tasks_ask_what_the_samples_taught(work: Path, told: list[Told]) -> None:
    assert told
    suite = read_suite(work / "suite/forgetting.yaml")
    tasks = {task.name: task for task in suite.tasks}
    sample = json.loads((work / "vqa/imagenet-val/samples.jsonl").read_text().splitlines()[0])
    asked = tasks["imagenet"].sample(tasks["imagenet"].items[0]).messages[0].content
    assert asked == sample["messages"][0]["content"]
    wiki = tasks["imagewikiqa"].sample(tasks["imagewikiqa"].items[0]).messages[0].content
    assert wiki == "<image>\n" + paper_data.wiki_rows()[0]["text"]


def test_quadrants_are_the_papers(work: Path, told: list[Told]) -> None:
    assert told
    suite = read_suite(work / "suite/forgetting.yaml")
    found: dict[tuple[str, str], list[str]] = {}
    for task in suite.tasks:
        found.setdefault((task.file.quadrant.name, task.file.role), []).append(task.name)
    assert found == {
        ("id_text_id_image", "new"): ["imagenet"],
        ("id_text_id_image", "heldout"): ["imagenetv2"],
        ("id_text_ood_image", "original"): ["flowers102", "caltech101", "stanford-cars"],
        ("ood_text_id_image", "original"): ["imagewikiqa"],
        ("ood_text_id_image", "heldout"): ["imagewikiqa-distracted"],
    }


def test_distractor_set_puts_the_class_in_place_of_one_wrong_option(
    work: Path, told: list[Told]
) -> None:
    assert told
    before = (work / "converted/imagewikiqa.jsonl").read_text().splitlines()
    after = (work / "vqa/imagewikiqa-distracted/items.jsonl").read_text().splitlines()
    assert len(after) == len(before) == 10
    for old, new in zip(map(json.loads, before), map(json.loads, after), strict=True):
        changed = [n for n in range(4) if old["options"][n] != new["options"][n]]
        assert changed == [new["class_option"]]
        assert new["options"][changed[0]] == old["class_name"]
        assert changed[0] != new["answer"] == "ABCD".index(old["answer"])


def test_mixtures_have_their_shares_and_drop_what_has_no_picture(
    work: Path, told: list[Told]
) -> None:
    assert told
    for name, share in (("flowers102", 10), ("ocr-vqa", 10), ("llava-0.5", 10), ("llava-0.7", 6)):
        rows = (work / f"mix/{name}/samples.jsonl").read_text().splitlines()
        sources = [json.loads(row)["_mix"]["source"] for row in rows]
        assert (len(rows), sources.count("target")) == (20, share)
        assert not any("missing.jpg" in row for row in rows)
    replayed = (work / "mix/replay-med/samples.jsonl").read_text().splitlines()
    assert len(replayed) == 20 + 10


def test_runs_train_what_table_1_names(told: list[Told]) -> None:
    learning = {
        out: {part for part, row in plan["parts"].items() if row["trainable"]}
        for out, plan in plans(told, "finetune").items()
    }
    assert learning["runs/full-1e-5"] == learning["runs/lora"] == {"language"}
    assert learning["runs/vision-1e-6"] == {"vision"}
    assert learning["runs/projector-1e-5"] == learning["blip/okvqa"] == {"projector"}
    assert learning["cl/5-fin"] == learning["tailor/okvqa"] == {"language", "projector"}
    steps = {out: plan["steps"] for out, plan in plans(told, "finetune").items()}
    assert (steps["runs/full-1e-6"], steps["runs/lora"]) == (80000, 40000)


def test_pages_are_of_every_run(told: list[Told]) -> None:
    shown = {
        out: [row["label"] for row in plan["checkpoints"]]
        for out, plan in plans(told, "eval-matrix").items()
    }
    assert [len(shown[f"eval/{name}"]) for name in ("forgetting", "llava", "continual")] == [
        12,
        3,
        6,
    ]
    assert {"flickr30k-0.1", "flickr30k-dare", "both-ties"} <= {*shown["eval/tailor"]}


HOURS = re.compile(r"\| (\d) x (\S+) \| (\d+) \| (\d) x (\S+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


def test_gpu_hours_follow_from_their_formula() -> None:
    found = HOURS.findall(README)
    assert len(found) == 5
    for k, weights, tokens, towers, tower, patches, hours in found:
        operations = int(k) * float(weights) * int(tokens)
        operations += int(towers) * float(tower) * int(patches)
        assert round(operations * 1.28e6 / (0.35 * 312e12) / 3600) == int(hours)
