"""The five traps that a fine-tuning tool ships unless it looks: the naive way fails, ours does not.

Found in transformers 5.23, peft 0.21, datasets 5.2 and in the recipes of the field.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import Trainer, TrainingArguments

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.data.mixing import quotas
from mllmtool.data.samples import Sample, read_samples
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.loading import load_model
from mllmtool.models.parts import partition
from mllmtool.training.job import prepare
from mllmtool.training.selection import select, trainable
from mllmtool.training.trainer import PartsTrainer

LAYER = "model.language_model.layers.0.mlp.up_proj.weight"


class Plain(Trainer):  # type: ignore[misc]
    """A Trainer as anyone writes it: batches of the first four samples."""

    def __init__(self, model: Path, samples: Path, folder: Path, steps: int) -> None:
        encoder, rows = Encoder.load(model), list(read_samples(samples))[:4]
        args = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            save_steps=2,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        super().__init__(
            model=load_model(model),
            args=args,
            train_dataset=range(4),
            data_collator=lambda _: encoder.train_batch(rows, samples.parent),
        )


@pytest.mark.filterwarnings("ignore")  # one of them is all that tells of the trap
def test_resume_starts_from_the_state_where_trainers_own_starts_from_the_base(
    llava: Path, colours: Path, tmp_path: Path
) -> None:
    plain = Plain(llava, colours, tmp_path / "plain", steps=2)
    plain.train()
    trained = plain.model.get_parameter(LAYER).detach().clone()
    again = Plain(llava, colours, tmp_path / "plain", steps=2)
    again._load_from_checkpoint(str(tmp_path / "plain" / "checkpoint-2"))
    base = load_model(llava).get_parameter(LAYER)
    naive = again.model.get_parameter(LAYER)
    assert torch.equal(naive, base)  # once transformers mends this, the subclass may go
    assert not torch.equal(naive, trained)

    values = {"model": str(llava), "samples": str(colours), "steps": 2, "batch": 4, "lr": 1e-2}
    config = FinetuneConfig.parse({**values, "save_every": 1, "warmup": 0})
    context = Context(quiet=True)
    ours = PartsTrainer(prepare(config, context), context, tmp_path / "ours")
    ours.train()
    resumed = PartsTrainer(prepare(config, context), context, tmp_path / "ours")
    resumed._load_from_checkpoint(str(tmp_path / "ours" / "checkpoint-2"))
    assert torch.equal(resumed.model.get_parameter(LAYER), ours.model.get_parameter(LAYER))


def moved(llama: Path, sums: Path, folder: Path, **values: Any) -> float:
    """The share of the language part's weights that 20 steps at 1e-6 move."""
    given = {"model": str(llama), "samples": str(sums), "steps": 20, "batch": 4, "warmup": 0}
    config = FinetuneConfig.parse({**given, "micro_batch": 4, "lr": 1e-6, **values})
    context = Context(quiet=True)
    trainer = PartsTrainer(prepare(config, context), context, folder)
    before = {n: p.detach().clone() for n, p in trainable(trainer.model).items()}
    trainer.train()
    pairs = [(p, before[n]) for n, p in trainable(trainer.model).items()]
    return sum(int((p != b).sum()) for p, b in pairs) / sum(b.numel() for _, b in pairs)


def test_low_rate_moves_weights_that_pure_bf16_rounds_back(
    llama: Path, sums: Path, tmp_path: Path
) -> None:
    naive = moved(llama, sums, tmp_path, precision="bf16", force_bf16=True)
    ours = moved(llama, sums, tmp_path, precision="bf16-mixed")
    assert naive < 0.2
    assert ours > 0.6


def test_adapters_stay_in_their_part_where_names_alone_reach_the_vision_tower(llava: Path) -> None:
    naive = load_model(llava)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), naive)
    assert any("vision_tower" in name for name in trainable(naive))

    ours = load_model(llava)
    train = ["language={lora: {rank: 2, modules: [q_proj, v_proj]}}"]
    config = FinetuneConfig.parse({"model": "m", "samples": "s", "steps": 1, "train": train})
    select(ours, partition(ours), config, seed=0)
    assert trainable(ours)
    assert not any("vision_tower" in name for name in trainable(ours))


def test_labels_hold_the_answer_where_the_prompts_length_loses_it(
    llava: Path, colours: Path
) -> None:
    encoder, sample = Encoder.load(llava), next(iter(read_samples(colours)))
    row = encoder.train_row(sample, colours.parent)
    asked = Sample(id="q", images=sample.images, messages=sample.messages[:1])
    prompt = encoder.prompt_row(asked, colours.parent)
    naive = row.ids[len(prompt.ids) :]  # the usual mask: as many tokens as the prompt has alone
    assert encoder.tokenizer.decode(naive).strip() == "</s>"
    assert encoder.tokenizer.decode(row.labels[row.labels != IGNORED]) == " red</s>"


def test_shares_are_exact_where_interleaving_draws_them() -> None:
    datasets = pytest.importorskip("datasets")
    target = datasets.Dataset.from_dict({"source": ["target"] * 1000})
    general = datasets.Dataset.from_dict({"source": ["general"] * 5000, "row": list(range(5000))})
    naive = datasets.interleave_datasets(
        [target.add_column("row", [-1] * 1000), general], probabilities=[0.9, 0.1], seed=0
    )
    drawn = [row for row in naive if row["source"] == "general"]
    assert len(drawn) / len(naive) != 0.1
    assert [row["row"] for row in drawn] == list(range(len(drawn)))  # always the head of the file
    assert quotas([0.9, 0.1], 1000) == [900, 100]
