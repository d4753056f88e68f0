"""`finetune` end to end, in process and out of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import factories
import families
import pytest
import suite_factory
import torch
import transformers
from commandline import wait_until
from safetensors.torch import load_file, save_file

from mllmtool.checkpoints import Checkpoint
from mllmtool.commands import finetune
from mllmtool.commands.finetune import plan, run
from mllmtool.configs.base import RunConfig
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.data.files import sha256_of
from mllmtool.errors import MllmtoolError
from mllmtool.models.parts import part_of
from mllmtool.runner import execute

Start = Callable[..., "subprocess.Popen[str]"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def tuned(out: Path, seed: int = 0, **values: Any) -> tuple[Path, dict[str, Any]]:
    """Run in process; the directory and its report."""
    config = FinetuneConfig.parse(
        {"steps": 3, "batch": 4, "micro_batch": 4, "lr": 1e-2, "warmup": 0.0, **values}
    )
    path = execute("finetune", run, config, RunConfig(out=str(out), quiet=True, seed=seed))
    return path, json.loads((path / "report.json").read_text())


def in_bf16(base: Path, into: Path) -> Path:
    """A copy of a checkpoint, rounded."""
    shutil.copytree(base, into)
    tensors = {k: v.bfloat16() for k, v in load_file(base / "model.safetensors").items()}
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    return into


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `mllmtool finetune` by itself; whatever still runs at the end is killed."""
    started = []

    def begin(*arguments: object, launch: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        command = [sys.executable, *launch, "-m", "mllmtool", "finetune", *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def changed_parts(base: Path, path: Path) -> set[str]:
    one, two = Checkpoint.open(base), Checkpoint.open(path)
    assert one.names == two.names
    assert [one.info(n) for n in one.names] == [two.info(n) for n in two.names]
    return {part_of(n) for n in one.names if not torch.equal(one[n], two[n])}


@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_one_part_learns_and_the_others_are_equal_bit_for_bit(
    part: str, llava: Path, colours: Path, tmp_path: Path
) -> None:
    path, report = tuned(
        tmp_path / "ft", model=str(llava), samples=str(colours), train=[f"{part}=full"]
    )
    assert changed_parts(llava, path) == {part}
    rows = report["results"]["parts"]
    assert {name for name, row in rows.items() if row["equal_to_base"]} == set(rows) - {part}
    assert rows[part]["how"] == "full"
    assert rows[part]["trainable"] == rows[part]["weights"]
    assert 0 < rows[part]["drift"]["changed"] <= 1
    assert rows[part]["drift"]["relative_l2"] > 0


def test_output_loads_with_the_auto_classes(llava: Path, colours: Path, tmp_path: Path) -> None:
    path, _ = tuned(
        tmp_path / "ft", model=str(llava), samples=str(colours), train=["language=lora"]
    )
    _, seen = transformers.AutoModelForImageTextToText.from_pretrained(
        path, output_loading_info=True
    )
    assert not any(seen[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    processor = transformers.AutoProcessor.from_pretrained(path)
    assert type(processor).__name__ == "LlavaProcessor"
    sidecars = {file.name for file in llava.iterdir()}
    made = {"README.md", "adapter-language", "curves.png", "preprocessor_config.json"}
    assert {file.name for file in path.iterdir()} == {*sidecars, *made, "report.json"}
    older = transformers.CLIPImageProcessor.from_pretrained(path)
    assert older.to_dict() == processor.image_processor.to_dict()


def test_adapters_reach_only_the_layers_they_name(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    path, report = tuned(
        tmp_path / "ft", model=str(llava), samples=str(colours), train=["language=lora:4"]
    )
    base, ours = Checkpoint.open(llava), Checkpoint.open(path)
    changed = [n for n in base.names if not torch.equal(base[n], ours[n])]
    assert len(changed) == report["results"]["parts"]["language"]["lora_targets"] == 14
    assert all(name.endswith("_proj.weight") for name in changed)
    assert all(name.startswith("language_model.model.layers.") for name in changed)
    how = {"lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0, "dora": False, "rslora": False}}
    assert report["results"]["parts"]["language"]["how"] == how


def test_base_in_bf16_gives_an_output_in_bf16(llava: Path, colours: Path, tmp_path: Path) -> None:
    base = in_bf16(llava, tmp_path / "base")
    path, report = tuned(tmp_path / "ft", model=str(base), samples=str(colours), lr=1e-5)
    assert changed_parts(base, path) == {"language"}
    # float32 steps of 1e-5 moved almost every weight that had a gradient; the file rounds most away
    assert 0 < report["results"]["parts"]["language"]["drift"]["changed"] < 0.5


def test_buffers_that_older_checkpoints_hold_are_kept_as_they_are(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(llava, older)
    tensors = load_file(llava / "model.safetensors")
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.rand(4)
    tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(tensors, older / "model.safetensors", metadata={"format": "pt"})
    values: dict[str, Any] = {"samples": str(colours), "train": ["language=full", "vision=full"]}
    path, report = tuned(tmp_path / "ft", model=str(older), **values)
    plain, _ = tuned(tmp_path / "plain", model=str(llava), **values)
    ours, base, newer = (Checkpoint.open(one) for one in (path, older, plain))
    for name in set(base.names) - set(newer.names):
        assert torch.equal(ours[name], base[name])
    for name in newer.names:
        assert torch.equal(ours[name], newer[name])
    assert report["results"]["parts"]["vision"]["frozen_tensors_equal_to_base"] == 1
    _, seen = transformers.AutoModelForImageTextToText.from_pretrained(
        path, output_loading_info=True
    )
    assert not any(seen[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))


def test_workers_change_no_byte(llava: Path, colours: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "micro_batch": 2}
    one, _ = tuned(tmp_path / "one", **values)
    two, _ = tuned(tmp_path / "two", **values, workers=2)
    name = "model.safetensors"
    assert (one / name).read_bytes() == (two / name).read_bytes()


def test_text_model(llama: Path, sums: Path, tmp_path: Path) -> None:
    path, report = tuned(tmp_path / "ft", model=str(llama), samples=str(sums), steps=20)
    assert changed_parts(llama, path) == {"language"}
    loss = report["results"]["loss"]
    assert loss["last"] < loss["first"] / 2
    assert [point["step"] for point in loss["curve"]] == list(range(1, 21))


def test_loss_is_told_by_source(llava: Path, colours: Path, tmp_path: Path) -> None:
    _, report = tuned(tmp_path / "ft", model=str(llava), samples=str(colours), steps=12)
    by_source = report["results"]["loss_by_source"]
    # the last quarter is 3 steps of 4 samples: one whole pass over 6 even and 6 odd, 2 tokens each
    assert {name: row["tokens"] for name, row in by_source.items()} == {"even": 12, "odd": 12}
    curve = [point["loss"] for point in report["results"]["loss"]["curve"][-3:]]
    mean = sum(row["loss"] for row in by_source.values()) / 2
    assert mean == pytest.approx(sum(curve) / 3, rel=1e-5)


def test_report_runs_again_to_the_same_bytes(llava: Path, colours: Path, tmp_path: Path) -> None:
    one, report = tuned(
        tmp_path / "one", seed=3, model=str(llava), samples=str(colours), train=["projector=full"]
    )
    config = FinetuneConfig.parse(report["config"])
    two = execute("finetune", run, config, RunConfig(out=str(tmp_path / "two"), quiet=True, seed=3))
    again = json.loads((two / "report.json").read_text())
    assert {k: v for k, v in again.items() if k != "run"} == {
        k: v for k, v in report.items() if k != "run"
    }
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_a_part_in_full_may_be_spelt_as_an_empty_choice(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "steps": 1}
    one, _ = tuned(tmp_path / "one", train=["projector={full: {}}"], **values)
    two, _ = tuned(tmp_path / "two", train=["projector=full"], **values)
    assert "| projector | full | " in (one / "README.md").read_text()
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_samples_may_be_a_folder_that_datasets_saved(
    llama: Path, sums: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in sums.read_text().splitlines()]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    values: dict[str, Any] = {"model": str(llama), "steps": 1}
    one, report = tuned(tmp_path / "one", samples=str(tmp_path / "saved"), **values)
    two, _ = tuned(tmp_path / "two", samples=str(sums), **values)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    found = {artifact["role"]: artifact["sha256"] for artifact in report["inputs"]}
    assert found["samples"] == sha256_of(tmp_path / "saved")


def test_dry_run_says_what_would_be_trained(llava: Path, colours: Path) -> None:
    config = FinetuneConfig.parse(
        {
            "model": str(llava),
            "samples": str(colours),
            "epochs": 2,
            "batch": 4,
            "train": ["language=lora:2", "projector=full"],
        }
    )
    shown = plan(config, Context(quiet=True))
    assert shown["learnt_text"] == {
        f"{colours}:1": " red</s>",
        f"{colours}:2": " green</s>",
        f"{colours}:3": " blue</s>",
    }
    assert (shown["samples"], shown["steps"], shown["epochs"]) == (12, 6, 2.0)
    for key, tokens in (("tokens", 30), ("image_tokens", 16), ("learnt_tokens", 2)):
        spread = {"min": tokens, "median": tokens, "max": tokens}
        assert shown[key] == {**spread, "histogram": {str(tokens): 12}}
    assert shown["parts"]["projector"] == {
        "how": "full",
        "lr": 1e-6,
        "weights": 2112,
        "trainable": 2112,
        "tensors": 4,
        "tensors_learning": 4,
        "lora_targets": 0,
    }
    assert shown["parts"]["vision"]["trainable"] == 0
    assert len(shown["lora_targets"]) == shown["parts"]["language"]["lora_targets"] == 14
    assert shown["sources"] == ["even", "odd"]
    json.dumps(shown)


@pytest.mark.parametrize(
    ("values", "status", "message"),
    [
        ({"model": "{tmp}/none"}, 3, "{tmp}/none: no such checkpoint directory"),
        ({"samples": "{tmp}/none.jsonl"}, 3, "{tmp}/none.jsonl: cannot be read: [Errno 2] No such"),
        ({"train": ["audio=full"]}, 2, "--train (audio): "),
        ({"train": ["language=half"]}, 2, "--train: 'half' is none of frozen, full"),
        ({"train": ["language=lora:x"]}, 2, "--train: 'lora:x' is not lora:RANK"),
        ({"train": ["vision=frozen"]}, 2, "--train: every part is frozen"),
        (
            {"max_length": 10},
            3,
            "{samples}:1: 30 tokens, more than --max-length 10; nothing is cut",
        ),
        ({"batch": 4, "micro_batch": 3}, 2, "--batch 4 is not a multiple of --micro-batch 3"),
        ({"epochs": 1.0}, 2, "--steps, --epochs: give exactly one of the two"),
        ({"lr": 1e30, "steps": 9}, 5, "step 2: the loss is "),
    ],
)
def test_bad_input_leaves_nothing_behind(
    values: Any, status: int, message: str, llava: Path, colours: Path, tmp_path: Path
) -> None:
    places = {"tmp": str(tmp_path), "samples": str(colours)}
    given = {"model": str(llava), "samples": str(colours), **values}
    given = {k: v.format(**places) if isinstance(v, str) else v for k, v in given.items()}
    with pytest.raises(MllmtoolError) as caught:
        tuned(tmp_path / "ft", **given)
    assert caught.value.status == status
    assert message.format(**places) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_samples_are_named_by_file_and_line(llava: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "messages": factories.turns("Hi", "red")},
        {"id": "b", "messages": []},
    ]
    samples = factories.write_rows(tmp_path / "s.jsonl", rows)
    with pytest.raises(MllmtoolError) as caught:
        tuned(tmp_path / "ft", model=str(llava), samples=str(samples))
    assert str(caught.value).startswith(f"{samples}:2: messages: ")


def test_output_that_exists(llava: Path, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "ft").mkdir()
    with pytest.raises(MllmtoolError) as caught:
        tuned(tmp_path / "ft", model=str(llava), samples=str(colours))
    assert str(caught.value) == (
        f"{tmp_path}/ft: exists; choose another --out, or replace it with --overwrite"
    )
    assert caught.value.status == 4


def test_processor_that_does_not_fit_the_model(llava: Path, colours: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in llava.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    processor = json.loads((base / "processor_config.json").read_text())
    processor["patch_size"] = 16
    (base / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(MllmtoolError) as caught:
        tuned(tmp_path / "ft", model=str(base), samples=str(colours))
    assert caught.value.status == 3
    assert str(caught.value).startswith(f"{colours}:1: the model refuses sample colour-0: ")
    assert str(caught.value).endswith("do its processor and its config.json belong together?")


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_killed_run_goes_on_to_the_same_bytes(
    kind: str, start: Start, colours: Path, tmp_path: Path
) -> None:
    base = families.CHECKPOINTS[kind](tmp_path / "base")
    flags = ["--model", base, "--samples", colours, "--batch", 4, "--micro-batch", 2]
    flags += ["--lr", 1e-2, "--save-every", 10]
    flags += ["--train", "language=full", "--train", "vision=lora"]
    work = tmp_path / ".ft.work"
    process = start(*flags, "--steps", 20, "--out", tmp_path / "ft")
    wait_until((work / "checkpoint-10" / "whole.json").exists, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "ft").exists()
    assert [path.parent.name for path in work.glob("*/whole.json")] == ["checkpoint-10"]

    values: dict[str, Any] = {"model": str(base), "samples": str(colours), "micro_batch": 2}
    values |= {"train": ["language=full", "vision=lora"], "steps": 20}
    values |= {"lr": 1e-2, "warmup": 0.1, "save_every": 10}
    with pytest.raises(MllmtoolError) as caught:
        tuned(tmp_path / "ft", **{**values, "lr": 2e-2})
    assert str(caught.value) == (
        f"--resume auto: {work} holds the state of another run: lr is 0.01 there, 0.02 here;"
        " start anew with --resume never, or choose another --out"
    )
    resumed, ours = tuned(tmp_path / "ft", **values)
    assert ours["run"]["resumed_from"] == "checkpoint-10"
    whole, theirs = tuned(tmp_path / "whole", **{**values, "save_every": None})
    assert theirs["run"]["resumed_from"] is None
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    assert ours["results"] == theirs["results"]
    assert not work.exists()


def test_saved_checkpoints_are_the_run_after_so_many_steps(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "schedule": "constant"}
    values |= {"train": ["language=lora:2", "projector=full"], "save_every": 2}
    whole, report = tuned(tmp_path / "whole", **values, steps=5, save_checkpoints=True)
    saved = sorted(path.name for path in (whole / "saved").iterdir())
    assert saved == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
    name = "model.safetensors"
    short, _ = tuned(tmp_path / "short", **values, steps=4)
    assert (short / name).read_bytes() == (whole / "saved" / "checkpoint-4" / name).read_bytes()
    assert (whole / name).read_bytes() == (whole / "saved" / "checkpoint-5" / name).read_bytes()
    assert f"saved/checkpoint-2/{name}" in {one["path"] for one in report["outputs"]}
    assert not (short / "saved").exists()
    again, _ = tuned(tmp_path / "again", model=str(whole), samples=str(colours))
    assert not any(path.is_dir() for path in again.iterdir())  # they are no sidecars


def test_saved_checkpoints_need_states() -> None:
    with pytest.raises(MllmtoolError) as caught:
        FinetuneConfig.parse({"model": "m", "samples": "s", "steps": 1, "save_checkpoints": True})
    assert str(caught.value) == ("--save-checkpoints: needs --save-every, the steps between them")


def test_state_of_another_run_can_be_dropped(llama: Path, sums: Path, tmp_path: Path) -> None:
    state = tmp_path / ".ft.work" / "checkpoint-7"
    state.mkdir(parents=True)
    (state / "whole.json").write_text('{"job": {"lr": 9.0}}')
    _, report = tuned(
        tmp_path / "ft", model=str(llama), samples=str(sums), save_every=2, resume="never"
    )
    assert report["run"]["resumed_from"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"ft"}


def test_sigterm_leaves_its_states_and_nothing_else(
    start: Start, llama: Path, sums: Path, tmp_path: Path
) -> None:
    process = start(
        *["--model", llama, "--samples", sums, "--steps", 100000, "--batch", 1],
        *["--save-every", 1, "--out", tmp_path / "ft"],
    )
    wait_until((tmp_path / ".ft.work" / "checkpoint-2" / "whole.json").exists, process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr == "mllmtool: interrupted; nothing was left half-written\n"
    assert [path.name for path in tmp_path.iterdir()] == [".ft.work"]


def test_two_processes_equal_one(
    start: Start, llava: Path, colours: Path, sums: Path, tmp_path: Path
) -> None:
    # anchors without pictures: the tower and the projector feed them nothing
    flags = ["--model", llava, "--samples", colours, "--steps", 6, "--batch", 4]
    train = ["vision=full", "projector=full", "language=full"]
    flags += ["--micro-batch", 1, "--lr", 1e-3, "--warmup", 0]
    flags += [flag for part in train for flag in ("--train", part)]
    keep = f"{{l2: 0.1, kl: 0.5, samples: {sums}}}"
    flags += ["--keep", keep]
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
    process = start(*flags, "--out", tmp_path / "two", launch=launch)
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert stdout == f"{tmp_path}/two\n"
    assert {path.name for path in tmp_path.iterdir()} == {"two"}
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "steps": 6}
    one, ours = tuned(tmp_path / "one", **values, micro_batch=1, lr=1e-3, keep=keep, train=train)
    two, theirs = (
        Checkpoint.open(tmp_path / "two"),
        json.loads((tmp_path / "two" / "report.json").read_text()),
    )
    base = Checkpoint.open(llava)
    single = Checkpoint.open(one)
    for name in base.names:
        torch.testing.assert_close(two[name], single[name], rtol=0, atol=1e-6)
    assert changed_parts(llava, one) == {"vision", "projector", "language"}
    assert theirs["run"]["processes"] == 2
    assert theirs["run"]["tokens"] == ours["run"]["tokens"]
    for source, row in ours["results"]["loss_by_source"].items():
        assert theirs["results"]["loss_by_source"][source] == pytest.approx(row, rel=1e-5)
    for term, row in ours["results"]["keep"].items():
        assert theirs["results"]["keep"][term] == pytest.approx(row, rel=1e-3, abs=1e-6)


def test_parts_learn_at_their_own_rates(llava: Path, colours: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "lr": 1e-3}
    values |= {"train": ["projector=full", "language=full"]}
    _, plain = tuned(tmp_path / "plain", **values)
    tuned(tmp_path / "same", **values, lr_by_part=["projector=1e-3"])
    slow, report = tuned(tmp_path / "slow", **values, lr_by_part=["projector=1e-6"])
    tensors = [Checkpoint.open(tmp_path / name) for name in ("plain", "same")]
    assert all(torch.equal(tensors[0][n], tensors[1][n]) for n in tensors[0].names)
    rows, before = report["results"]["parts"], plain["results"]["parts"]
    assert rows["projector"]["lr"] == 1e-6
    assert 0 < rows["projector"]["drift"]["max"] < before["projector"]["drift"]["max"] / 100
    assert rows["language"]["drift"]["max"] == pytest.approx(
        before["language"]["drift"]["max"], rel=0.5
    )
    assert changed_parts(llava, slow) == {"projector", "language"}


def test_tensors_that_are_not_chosen_are_proven_equal(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    path, report = tuned(
        tmp_path / "ft", model=str(llava), samples=str(colours), train=["language=full:up_proj"]
    )
    base, ours = Checkpoint.open(llava), Checkpoint.open(path)
    changed = [n for n in base.names if not torch.equal(base[n], ours[n])]
    assert [name.split(".")[-2] for name in changed] == ["up_proj", "up_proj"]
    row = report["results"]["parts"]["language"]
    assert (row["tensors"] - row["frozen_tensors_equal_to_base"], row["tensors_learning"]) == (2, 2)


def test_frozen_parts_of_a_bf16_base_stay_bf16(llava: Path, colours: Path, tmp_path: Path) -> None:
    base = in_bf16(llava, tmp_path / "base")
    values: dict[str, Any] = {"model": str(base), "samples": str(colours), "steps": 6}
    for train in ("language=full", "language=lora"):
        path, report = tuned(
            tmp_path / train, **values, precision="bf16-mixed", train=[train, "projector=full"]
        )
        assert changed_parts(base, path) == {"language", "projector"}
        assert report["results"]["loss"]["last"] < report["results"]["loss"]["first"]


def test_checkpointing_activations_changes_nothing(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "lr": 1e-3}
    values |= {"train": ["vision=full", "language=full"]}
    one, _ = tuned(tmp_path / "one", **values)
    two, _ = tuned(tmp_path / "two", **values, gradient_checkpointing=True)
    plain, again = Checkpoint.open(one), Checkpoint.open(two)
    for name in plain.names:
        torch.testing.assert_close(again[name], plain[name], rtol=0, atol=1e-6)


def test_probe_gives_the_curve_and_changes_nothing(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    suite = suite_factory.colour_suite(tmp_path / "suite")
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "steps": 5}
    plain, _ = tuned(tmp_path / "plain", **values)
    path, report = tuned(tmp_path / "ft", **values, probe={"suite": str(suite), "every": 2})
    points = report["results"]["probe"]
    assert [point["step"] for point in points] == [0, 2, 4, 5]
    assert points[0]["forgetting"] == 0
    for point in points:
        assert point["forgetting"] == pytest.approx(points[0]["original"] - point["original"])
    assert (path / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert (path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_run_that_forgets_is_stopped(llava: Path, colours: Path, tmp_path: Path) -> None:
    suite = suite_factory.colour_suite(tmp_path / "suite", number=24)
    probe = {"suite": str(suite), "every": 5, "stop_if": "forgetting > 0.05"}
    _, report = tuned(
        tmp_path / "ft",
        model=str(llava),
        samples=str(colours),
        steps=200,
        lr=3e-2,
        train=["language=full", "vision=full"],
        probe=probe,
    )
    results = report["results"]
    stopped = results["stopped_at"]
    assert stopped is not None
    assert stopped < 200
    assert [point["step"] for point in results["probe"]] == list(range(0, stopped + 1, 5))
    assert results["probe"][-1]["forgetting"] > 0.05
    assert all(point["forgetting"] <= 0.05 for point in results["probe"][:-1])
    assert results["loss"]["curve"][-1]["step"] == stopped
    assert all(row["tokens"] > 0 for row in results["loss_by_source"].values())


def test_every_problem_is_told_at_once(llava: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "messages": factories.turns("Hi", "")},
        {"id": "b", "images": ["no.png"], "messages": factories.turns("<image>Hi", "red")},
    ]
    samples = factories.write_rows(tmp_path / "s.jsonl", rows)
    with pytest.raises(MllmtoolError) as caught:
        tuned(
            tmp_path / "ft", model=str(llava), samples=str(samples), train=["language=full:qproj"]
        )
    message = str(caught.value)
    assert message.startswith("--train language: no qproj in it; its layers are ")
    assert f"{samples}:1: sample a: holds no answer to learn" in message
    assert f"{samples}:2: sample b: {tmp_path}/no.png: no such image" in message


def test_disk_without_room_is_refused_before_the_first_step(
    llama: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    size = (llama / "model.safetensors").stat().st_size
    with pytest.raises(MllmtoolError) as caught:
        tuned(tmp_path / "ft", model=str(llama), samples=str(sums))
    assert caught.value.status == 4
    needed = int(str(caught.value).split(" need ")[1].split(" bytes")[0].replace(",", ""))
    assert size * 0.8 < needed <= size
    assert str(caught.value) == (
        f"{tmp_path}: the checkpoint and its states need {needed:,} bytes, and 1,000 are free;"
        " choose another --out, or leave --save-every out"
    )
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_line(llama: Path, sums: Path, tmp_path: Path) -> None:
    flags = f"--model {llama} --samples {sums} --steps 4 --save-every 1 --lr 1e-3"
    command = f"ulimit -f 40; {sys.executable} -m mllmtool finetune {flags} --out {tmp_path}/ft"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 4
    state = f"{tmp_path}/.ft.work/checkpoint-1"
    assert done.stderr.splitlines()[-1].startswith(f"mllmtool: {state}: cannot be written: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ft").exists()


def test_events_for_tensorboard(llama: Path, sums: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, report = tuned(tmp_path / "ft", model=str(llama), samples=str(sums), tensorboard=True)
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    told = [event.value for event in events.Scalars("train/loss")]
    curve = [point["loss"] for point in report["results"]["loss"]["curve"]]
    assert told == pytest.approx(curve)


def test_text_alone_teaches_a_projector_nothing_and_is_no_error(
    llava: Path, colours: Path, sums: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in sums.read_text().splitlines()[:4]]
    texts = factories.write_rows(tmp_path / "texts.jsonl", rows)
    _, report = tuned(
        tmp_path / "ft", model=str(llava), samples=str(texts), train=["projector=full"]
    )
    assert report["results"]["parts"]["projector"]["drift"]["changed"] == 0
    assert report["warnings"] == [
        "--train projector: none of its weights moved on disk; the model does not use what learns"
        " there, or --lr is below its dtype's rounding"
    ]
    pictures = [json.loads(line) for line in colours.read_text().splitlines()[:4]]
    mixed = factories.write_rows(colours.parent / "mixed.jsonl", [*rows, *pictures])
    values: dict[str, Any] = {"model": str(llava), "samples": str(mixed), "micro_batch": 1}
    _, report = tuned(tmp_path / "mixed", **values, train=["projector=full"])
    assert report["results"]["parts"]["projector"]["drift"]["changed"] > 0


def test_run_that_was_stopped_and_then_killed_stays_stopped(
    llava: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = suite_factory.colour_suite(tmp_path / "suite", number=24)
    probe = {"suite": str(suite), "every": 2, "stop_if": "forgetting > 0.0"}
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), "steps": 60}
    values |= {"lr": 3e-2, "train": ["language=full", "vision=full"], "probe": probe}
    whole, ours = tuned(tmp_path / "whole", **values, save_every=2)
    assert ours["results"]["stopped_at"] == ours["results"]["steps_done"] < 60
    assert ours["warnings"][0].startswith(f"stopped at step {ours['results']['stopped_at']}: ")

    monkeypatch.setattr(finetune, "_write", lambda *_: sys.exit(9))  # as if killed here
    with pytest.raises(SystemExit):
        tuned(tmp_path / "ft", **values, save_every=2)
    monkeypatch.undo()
    assert list((tmp_path / ".ft.work").glob("checkpoint-*"))
    again, theirs = tuned(tmp_path / "ft", **values, save_every=2)
    assert theirs["run"]["resumed_from"] == f"checkpoint-{ours['results']['stopped_at']}"
    assert theirs["results"] == ours["results"]
    name = "model.safetensors"
    assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_states_of_a_run_that_diverged_are_dropped(llama: Path, sums: Path, tmp_path: Path) -> None:
    with pytest.raises(MllmtoolError, match="the loss is "):
        tuned(
            tmp_path / "ft",
            model=str(llama),
            samples=str(sums),
            lr=1e30,
            steps=9,
            save_every=1,
        )
    assert list(tmp_path.iterdir()) == []
