"""How fast `finetune` is, beside a bare loop and a plain `Trainer`. Not part of the suite.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python tests/benchmarks/finetune.py [STEPS] [ROUNDS]

A LLaVA of 95 million parameters, whose step takes some two seconds of one core, is trained on 256
pictures, the language part in full, 8 samples a step. Each arm runs in a process of its own, one
after the other, in several rounds, on the same samples in the same order; what is timed is the
training itself. Tokenising and preparing pictures is part of the work: the peers do it with the
checkpoint's own processor in the collator. A row: wall and CPU seconds a step (medians of rounds),
samples a wall second over the bare loop's and over Trainer's, peak memory over both's.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SAMPLES, BATCH, LR = 256, 8, 1e-4
ARMS = ("bare", "trainer", "mllmtool")


def main() -> None:
    """Build, run the arms in turn, print."""
    if len(sys.argv) == 6:
        run(sys.argv[1], *map(Path, sys.argv[2:5]), steps=int(sys.argv[5]))
        return
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        model, samples = build(Path(folder))
        order = Path(folder) / "order.json"
        write_order(order, steps)
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        for number in range(1, rounds + 1):
            for arm in ARMS:
                command = [sys.executable, __file__, arm, model, samples, order, str(steps)]
                done = subprocess.run(
                    list(map(str, command)), capture_output=True, text=True, check=True
                )
                row = json.loads(done.stdout.splitlines()[-1])
                found[arm].append(row)
                sys.stdout.write(
                    f"round {number} of {rounds}: {arm:8} {row['seconds'] / steps:.3f} s,"
                    f" {row['cpu'] / steps:.3f} CPU s a step\n"
                )
                sys.stdout.flush()
    report(found, steps)


def report(found: dict[str, list[dict[str, float]]], steps: int) -> None:
    """Print medians and ratios."""
    wall, cpu, memory = (
        {arm: statistics.median(row[key] for row in rows) for arm, rows in found.items()}
        for key in ("seconds", "cpu", "bytes")
    )
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f}; {steps} steps of {BATCH} samples\n")
    heads = f"{'s':>7} {'CPU s':>7} {'x bare':>7} {'x Trainer':>10}"
    sys.stdout.write(f"{'':10} {heads}   memory x both\n")
    for arm in ARMS:
        sys.stdout.write(
            f"{arm:10} {wall[arm] / steps:7.3f} {cpu[arm] / steps:7.3f}"
            f" {wall['bare'] / wall[arm]:7.3f} {wall['trainer'] / wall[arm]:10.3f}"
            f" {memory[arm] / memory['bare']:7.3f} {memory[arm] / memory['trainer']:7.3f}\n"
        )
    losses = {arm: rows[0]["loss"] for arm, rows in found.items()}
    sys.stdout.write(f"last losses, which must agree: {losses}\n")


def build(folder: Path) -> tuple[Path, Path]:
    """A LLaVA of about 38 million parameters, and its samples."""
    import factories
    import transformers

    tokenizer = factories.new_tokenizer(end="</s>")
    processor = transformers.LlavaProcessor(
        image_processor=factories.new_image_processor(),
        tokenizer=tokenizer,
        patch_size=factories.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=factories.LLAVA_TEMPLATE,
    )
    text = factories.text_config(tokenizer, tie_word_embeddings=False)
    text.update({"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 30})
    text.update({"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64})
    config = transformers.LlavaConfig(
        vision_config=factories.vision_config(),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(factories.PIXELS // factories.PATCH) ** 2,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    model = transformers.LlavaForConditionalGeneration
    path = factories.save(model, config, processor, folder / "base", 0)
    return path, factories.colour_samples(folder / "samples", SAMPLES)


def write_order(path: Path, steps: int) -> None:
    """The order in which `finetune` sees the samples, for the peers."""
    from mllmtool.context import Context
    from mllmtool.training.examples import Order

    order = Order(SAMPLES, steps * BATCH, Context(seed=0))
    path.write_text(json.dumps([order[place] for place in range(len(order))]))


def run(arm: str, model: Path, samples: Path, order: Path, *, steps: int) -> None:
    """One arm: print its seconds, peak memory and last loss as JSON."""
    import torch

    torch.set_num_threads(1)
    train = {"bare": bare, "trainer": plain_trainer, "mllmtool": ours}[arm](
        model, samples, json.loads(order.read_text()), steps
    )
    started, cpu = time.perf_counter(), time.process_time()
    loss = train()
    timed = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({**timed, "bytes": peak, "loss": round(loss, 4)}) + "\n")


def ours(model: Path, samples: Path, order: Sequence[int], steps: int) -> Callable[[], float]:
    """As `mllmtool finetune` trains; `order` is its own."""
    del order
    from mllmtool.configs.finetune import FinetuneConfig
    from mllmtool.context import Context
    from mllmtool.training.job import prepare
    from mllmtool.training.trainer import PartsTrainer

    values = {"model": str(model), "samples": str(samples), "steps": steps, "lr": LR}
    config = FinetuneConfig.parse({**values, "batch": BATCH, "micro_batch": BATCH, "warmup": 0})
    context = Context(quiet=True)
    trainer = PartsTrainer(prepare(config, context), context, model.parent)

    def train() -> float:
        trainer.train()
        return last_loss(trainer)

    return train


def plain_trainer(
    model: Path, samples: Path, order: Sequence[int], steps: int
) -> Callable[[], float]:
    """`transformers.Trainer` with a collator that calls the processor."""
    import transformers

    network, collate, rows = peers(model, samples)
    args = transformers.TrainingArguments(
        output_dir=str(model.parent),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=LR,
        lr_scheduler_type="cosine",
        logging_steps=1,
        save_strategy="no",
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    dataset: Any = [rows[index] for index in order]
    trainer = transformers.Trainer(
        model=network, args=args, train_dataset=dataset, data_collator=collate
    )

    def train() -> float:
        trainer.train()
        return last_loss(trainer)

    return train


def bare(model: Path, samples: Path, order: Sequence[int], steps: int) -> Callable[[], float]:
    """AdamW, clipping and a cosine, and nothing else."""
    import torch
    import transformers

    network, collate, rows = peers(model, samples)
    network.train()
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LR, weight_decay=0.0, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 0, steps)

    def train() -> float:
        loss = torch.zeros(())
        for step in range(steps):
            chosen = [rows[index] for index in order[step * BATCH : (step + 1) * BATCH]]
            loss = network(**collate(chosen)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return loss.item()

    return train


def peers(model: Path, samples: Path) -> tuple[Any, Callable[[Sequence[Any]], Any], list[Any]]:
    """The model with its language part free, a collator with the processor, and the rows."""
    import transformers
    from PIL import Image

    network = transformers.LlavaForConditionalGeneration.from_pretrained(model)
    network.requires_grad_(False)
    network.model.language_model.requires_grad_(True)
    network.lm_head.requires_grad_(True)
    processor = transformers.AutoProcessor.from_pretrained(model)
    rows = [json.loads(line) for line in samples.read_text().splitlines()]

    def collate(chosen: Sequence[Any]) -> Any:
        texts, prompts, pictures = [], [], []
        for row in chosen:
            turns = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
            turns[0]["content"] = turns[0]["content"].replace("<image>", "<image>\n")
            texts.append(processor.apply_chat_template(turns))
            prompts.append(processor.apply_chat_template(turns[:1], add_generation_prompt=True))
            pictures.append(Image.open(samples.parent / row["images"][0]).convert("RGB"))
        batch = processor(
            text=texts, images=pictures, padding=True, padding_side="right", return_tensors="pt"
        )
        offsets = processor.tokenizer(
            [text.replace("<image>", "<image>" * 16) for text in texts],
            return_offsets_mapping=True,
            padding=True,
            padding_side="right",
        )["offset_mapping"]
        labels = batch["input_ids"].clone()
        for place, (prompt, spans) in enumerate(zip(prompts, offsets, strict=True)):
            start = len(prompt.replace("<image>", "<image>" * 16))
            for token, (_, end) in enumerate(spans):
                if end <= start:
                    labels[place, token] = -100
        return {**batch, "labels": labels}

    return network, collate, rows


def last_loss(trainer: Any) -> float:
    """The loss of the last step."""
    return float([row["loss"] for row in trainer.state.log_history if "loss" in row][-1])


if __name__ == "__main__":
    main()
