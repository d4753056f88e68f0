"""A model in shards: refused where it would be ignored, and equal to one that is whole."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mllmtool.checkpoints import Checkpoint
from mllmtool.commands.finetune import run
from mllmtool.configs.base import RunConfig
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.data.samples import Message, Sample
from mllmtool.errors import ConfigError, DataError
from mllmtool.models.loading import load_model
from mllmtool.runner import execute
from mllmtool.training import sharding
from mllmtool.training.sharding import check_alike, check_sharding, trainer_keys

LAUNCHER = Path(__file__).parent / "fsdp_on_cpu.py"
FLAGS = {"steps": 12, "batch": 4, "micro_batch": 1, "lr": 1e-3, "warmup": 0.0, "save_every": 4}
TRAIN = ["vision=lora:4", "projector=full", "language=full"]


def config(**values: Any) -> FinetuneConfig:
    return FinetuneConfig.parse({"model": "m", "samples": "s", "steps": 1, **values})


def start_shards(flags: list[str]) -> list["subprocess.Popen[str]"]:
    """Two processes as torchrun starts them, each to be killed by itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, str(LAUNCHER), "finetune", "--fsdp", "true", *flags]
    return [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **address,
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
            },
        )
        for rank in range(2)
    ]


def test_shards_killed_and_resumed_equal_a_whole_model(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    keep = "{kl: 0.5}"
    values: dict[str, Any] = {"model": str(llava), "samples": str(colours), **FLAGS}
    flags = [
        text for key, value in values.items() for text in (f"--{key.replace('_', '-')}", str(value))
    ]
    flags += [text for how in TRAIN for text in ("--train", how)]
    flags += ["--keep", keep, "--out", str(tmp_path / "shards")]
    state = tmp_path / ".shards.work" / "checkpoint-4"
    processes = start_shards(flags)
    while not (state / "whole.json").exists() and processes[0].poll() is None:
        time.sleep(0.002)
    for process in processes:
        process.kill()
    killed = [process.communicate() for process in processes]
    assert (state / "optimizer.bin").exists(), killed  # FSDP's; DDP writes optimizer.pt
    assert not (tmp_path / "shards").exists()

    processes = start_shards(flags)
    done = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    assert [stdout for stdout, _ in done] == [f"{tmp_path}/shards\n", ""]
    settings = FinetuneConfig.parse({**values, "train": TRAIN, "keep": keep})
    execute("finetune", run, settings, RunConfig(out=str(tmp_path / "one"), quiet=True))
    base = Checkpoint.open(llava)
    shards, one = (Checkpoint.open(tmp_path / name) for name in ("shards", "one"))
    for name in base.names:
        torch.testing.assert_close(shards[name], one[name], rtol=0, atol=1e-5, msg=name)
    theirs, ours = (
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("shards", "one")
    )
    assert theirs["run"]["resumed_from"] == "checkpoint-4"
    assert theirs["results"]["keep"]["kl"] == pytest.approx(ours["results"]["keep"]["kl"], rel=1e-3)
    for part, row in ours["results"]["parts"].items():
        same = theirs["results"]["parts"][part]
        assert same["trainable"] == row["trainable"]
        assert same["drift"]["relative_l2"] == pytest.approx(row["drift"]["relative_l2"], rel=1e-3)
    adapters = (tmp_path / "shards" / "adapter-vision" / "adapter_model.safetensors").stat()
    assert adapters.st_size > 0


@pytest.mark.parametrize("asked", [{"fsdp": True}, {"deepspeed": "zero.json"}])
def test_shards_are_refused_on_a_cpu(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_sharding(config(**asked))
    assert str(caught.value) == (
        f"--{next(iter(asked))}: shards a model over GPUs, and there is none; on a CPU Trainer"
        " would train without it in silence; leave it out"
    )


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_accelerates_own_launcher_is_refused_not_ignored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(ConfigError) as caught:
        check_sharding(config())
    assert str(caught.value) == (
        f"{name}: is not read, so that a report says it all; give --fsdp or --deepspeed, and start"
        " with torchrun"
    )


def test_shards_want_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "has_gpu", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError) as caught:
        check_sharding(config(fsdp={}))
    assert str(caught.value) == (
        "--fsdp: shards a model over processes; start them with torchrun (recipes/launch)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--deepspeed: needs a package; pip install deepspeed, or use --fsdp"),
        ("{", "--deepspeed {file}: is not a DeepSpeed config: Expecting property name"),
        ('{"zero_optimization": {"stage": 3}}', "--deepspeed {file}: ZeRO stage 3 is not served"),
        ('{"optimizer": {}}', "--deepspeed {file}: its optimizer would set --lr and --schedule"),
    ],
)
def test_zero_that_cannot_be(
    text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "zero.json"
    file.write_text(text or "{}")
    monkeypatch.setattr(sharding, "has_gpu", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "0")
    if text is not None:  # as if the package were there
        monkeypatch.setattr(sharding, "find_spec", lambda _: object())
    with pytest.raises(ConfigError) as caught:
        check_sharding(config(deepspeed=str(file)))
    assert str(caught.value).startswith(message.format(file=file))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fsdp": {}, "deepspeed": "z"}, "--fsdp, --deepspeed: give one of the two"),
        ({"fsdp": {}, "keep": {"l2": 1.0}}, "--keep: l2 is not served with --fsdp; use kl"),
        ({"fsdp": {}, "probe": {"suite": "s"}}, "--probe: is not served with --fsdp; run "),
        ({"deepspeed": "z", "save_every": 2}, "--save-every: is not served with --deepspeed"),
        ({"fsdp": {"cpu_offload": True}}, "cpu_offload: unknown key of fsdp"),
        ({"fsdp": "full_shard"}, "--fsdp: 'full_shard': is not a mapping; write {KEY: VALUE, ...}"),
    ],
)
def test_what_shards_do_not_serve(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert str(caught.value).startswith(message)


def test_layers_to_wrap_are_those_of_the_model(llava: Path) -> None:
    model = load_model(llava)
    keys = trainer_keys(config(fsdp=True), model)["fsdp_config"]
    # `_no_split_modules` names layers of other models too, at which accelerate fails
    assert keys["transformer_layer_cls_to_wrap"] == [
        name for name in keys["transformer_layer_cls_to_wrap"] if name in str(model)
    ]
    assert "LlamaDecoderLayer" in keys["transformer_layer_cls_to_wrap"]
    with pytest.raises(ConfigError) as caught:
        trainer_keys(config(fsdp={"transformer_layer_cls_to_wrap": ["Block"]}), model)
    assert str(caught.value).startswith("--fsdp: no Block in the model; it has ")


def test_samples_that_lead_processes_apart_are_refused() -> None:
    turns = (Message(role="user", content="Hi"), Message(role="assistant", content="Yo"))
    text = Sample(id="a", messages=turns)
    picture = Sample(
        id="b",
        images=("a.png",),
        messages=(Message(role="user", content="<image>Hi"), turns[1]),
    )
    check_alike([picture, picture], ["f:1", "f:2"])
    with pytest.raises(DataError) as caught:
        check_alike([picture, text], ["f:1", "f:2"])
    assert str(caught.value) == (
        "f:2: has no image, unlike f:1; with --fsdp all samples must have images, or none"
    )
