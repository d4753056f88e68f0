"""What `transformers.Trainer` is told."""

import math
from pathlib import Path

import torch
from transformers import TrainingArguments

from mllmtool.training.job import Job
from mllmtool.training.sharding import trainer_keys

CURVE_POINTS = 200
DDP_TIMEOUT = 4 * 3600  # seconds that processes wait for the one that probes
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def arguments(job: Job, states: Path, seed: int) -> TrainingArguments:
    """Trainer's arguments; states go under `states` when the config wants any."""
    config, length = job.config, job.length
    cuda = torch.cuda.is_available()
    args = TrainingArguments(
        output_dir=str(states),
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=length.accumulation,
        max_steps=length.steps,
        learning_rate=config.lr,
        lr_scheduler_type=SCHEDULES[config.schedule],
        warmup_steps=math.floor(config.warmup * length.steps),
        weight_decay=config.weight_decay,
        bf16=config.precision == "bf16-mixed",
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=max(1, length.steps // CURVE_POINTS),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or length.steps,
        save_total_limit=None if config.save_checkpoints else 2,
        seed=seed % 2**32,
        train_sampling_strategy="sequential",  # `Order` has shuffled already
        remove_unused_columns=False,
        average_tokens_across_devices=True,
        ddp_timeout=DDP_TIMEOUT,
        ddp_find_unused_parameters=False,  # the loss names those that feed nothing
        max_grad_norm=config.max_grad_norm,
        dataloader_pin_memory=cuda,
        dataloader_num_workers=config.workers,
        use_cpu=not cuda,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        **trainer_keys(config, job.model),
    )
    _ = args.device
    args._n_gpu = min(args._n_gpu, 1)  # else several GPUs mean DataParallel and a larger batch
    return args
