"""Config of `finetune`."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mllmtool.configs.base import Config, Part, flag
from mllmtool.configs.selection import (
    Choice,
    Full,
    How,
    Lora,
    Names,
    parse_how,
    parse_mapping,
    parse_pairs,
)

BF16_FLOOR = 1e-5  # below it, 1.3 % of weights moved at 1e-6 in 200 steps, 12 % at 1e-5 itself


class Keep(BaseModel):
    """Terms of the loss that hold the model to the base: both are off unless given.

    `l2` is the weight of the squared distance of what learns from the base (L2-SP, Li et al. 2018),
    `kl` that of the divergence from the base's answers (Learning without Forgetting, Li and Hoiem
    2016) at a temperature, on the training samples or on others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    l2: Annotated[float, Field(ge=0)] = 0.0
    kl: Annotated[float, Field(ge=0)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 2.0
    samples: str | None = None
    images: str | None = None

    @model_validator(mode="after")
    def _used(self) -> Self:
        if not (self.l2 or self.kl):
            raise ValueError("holds nothing: give l2 or kl a weight")
        if self.samples is not None and not self.kl:
            raise ValueError("samples are for kl, which has no weight")
        return self


class Probe(BaseModel):
    """A suite to evaluate at step 0, every `every` steps and at the end, by option likelihood."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    suite: str
    every: Annotated[int | None, Field(ge=1)] = None
    limit: Annotated[int | None, Field(ge=1)] = 200
    batch: Annotated[int, Field(ge=1)] = 32
    stop_if: Annotated[str | None, Field(pattern=r"^forgetting\s*>\s*\d*\.?\d+$")] = None

    @property
    def ceiling(self) -> float | None:
        """The forgetting beyond which a run stops."""
        return None if self.stop_if is None else float(self.stop_if.partition(">")[2])


class Fsdp(BaseModel):
    """Weights, gradients and moments in shards over the processes: torch's FSDP2.

    The keys are those of Trainer's `fsdp_config`, with its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reshard_after_forward: bool = True
    transformer_layer_cls_to_wrap: Names | None = None


class FinetuneConfig(Config):
    """Train chosen parts of a checkpoint on samples, and prove what moved."""

    sections: ClassVar[tuple[str, ...]] = ("data", "optim", "output")
    alternatives: ClassVar[tuple[str, ...]] = ("steps", "epochs")
    renamed: ClassVar[dict[str, str]] = {
        "model_name_or_path": "model",
        "dataset": "samples",
        "freeze_vision_tower": "train: {vision: frozen}",
        "freeze_multi_modal_projector": "train: {projector: frozen}",
        "freeze_language_model": "train: {language: frozen}",
        "finetuning_type": "train: {language: full} or {language: {lora: {rank: 8}}}",
        "lora_rank": "train: {language: {lora: {rank: 8}}}",
        "train.r": "rank",
        "train.lora_rank": "rank",
        "train.lora_alpha": "alpha",
        "train.lora_dropout": "dropout",
        "train.target_modules": "modules",
        "train.use_dora": "dora",
        "train.use_rslora": "rslora",
        "learning_rate": "lr",
        "mm_projector_lr": "lr_by_part: {projector: 2.0e-5}",
        "lr_scheduler_type": "schedule",
        "scheduler": "schedule",
        "warmup_ratio": "warmup, a share of the steps",
        "warmup_steps": "warmup, a share of the steps",
        "max_steps": "steps",
        "num_train_epochs": "epochs",
        "per_device_train_batch_size": "micro_batch",
        "gradient_accumulation_steps": "batch, the samples of a whole step",
        "cutoff_len": "max_length",
        "max_pixels": "image_max_pixels",
        "bf16": "precision: bf16-mixed",
        "fsdp_config": "fsdp: {reshard_after_forward: true}",
        "save_steps": "save_every",
        "save_total_limit": "save_checkpoints: true keeps all, else the last two",
        "dataloader_num_workers": "workers",
        "output_dir": "out",
        "overwrite_output_dir": "overwrite",
        "resume_from_checkpoint": "resume: auto",
        "group_by_length": "no such key; samples are seen in random order",
        "logging_dir": "tensorboard: true",
        "save_safetensors": "no such key; nothing else is ever written",
    }

    model: Annotated[str, Field(description="checkpoint to start from")]
    samples: Annotated[str, Field(description="training samples")]
    images: Annotated[
        str | None, Field(description="folder of the images; default: the samples' own folder")
    ] = None
    train: Annotated[
        dict[Part, How],
        Field(
            description="PART=HOW, repeated: full, frozen, bitfit, norm, lora, lora:RANK,"
            " full:q_proj,v_proj or YAML as in a recipe; parts not named are frozen"
        ),
    ] = {"language": "full"}  # noqa: RUF012 (pydantic copies it)
    lr: Annotated[float, Field(description="peak learning rate", gt=0)] = 1e-6
    lr_by_part: Annotated[
        dict[Part, Annotated[float, Field(gt=0)]],
        Field(description="PART=RATE in place of --lr, repeated"),
    ] = {}  # noqa: RUF012 (pydantic copies it)
    steps: Annotated[int | None, Field(description="optimizer steps", ge=1)] = None
    epochs: Annotated[float | None, Field(description="passes over the samples", gt=0)] = None
    batch: Annotated[int, Field(description="samples an optimizer step", ge=1)] = 16
    micro_batch: Annotated[int, Field(description="samples a forward pass", ge=1)] = 1
    schedule: Annotated[
        Literal["cosine", "linear", "constant"], Field(description="learning rate after warm-up")
    ] = "cosine"
    warmup: Annotated[float, Field(description="share of the steps that warm up", ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(description="AdamW weight decay", ge=0)] = 0.0
    max_grad_norm: Annotated[
        float, Field(description="norm that the gradient is cut down to; 0: never", ge=0)
    ] = 1.0
    max_length: Annotated[
        int, Field(description="tokens a sample, image tokens included; nothing is cut off", ge=1)
    ] = 16384
    image_max_pixels: Annotated[
        int | None,
        Field(description="pixels a picture is scaled down to in training, for Qwen-VL", ge=1),
    ] = None
    on_long: Annotated[
        Literal["error", "drop"], Field(description="what becomes of a sample that is longer")
    ] = "error"
    precision: Annotated[
        Literal["float32", "bf16-mixed", "bf16"],
        Field(
            description="bf16-mixed: autocast, what learns in float32, what is frozen as it is on"
            " disk; bf16: everything"
        ),
    ] = "float32"
    force_bf16: Annotated[
        bool, Field(description="allow pure bf16 at a rate that it rounds away")
    ] = False
    gradient_checkpointing: Annotated[
        bool, Field(description="compute activations again rather than hold them")
    ] = False
    fsdp: Annotated[
        Fsdp | None,
        Field(description="true, or {reshard_after_forward: false, ...} as YAML: shards by FSDP2"),
    ] = None
    deepspeed: Annotated[
        str | None, Field(description="DeepSpeed's JSON config, of ZeRO stage 0 to 2")
    ] = None
    keep: Annotated[
        Keep | None, Field(description="{l2: X, kl: X, temperature: 2, samples: FILE}, as YAML")
    ] = None
    probe: Annotated[
        Probe | None,
        Field(description="{suite: FILE, every: N, limit: N, stop_if: forgetting > 0.02}, as YAML"),
    ] = None
    workers: Annotated[
        int, Field(description="processes that prepare batches; 0: the one that trains", ge=0)
    ] = 0
    save_every: Annotated[
        int | None, Field(description="optimizer steps between resumable states", ge=1)
    ] = None
    save_checkpoints: Annotated[
        bool,
        Field(description="make each state a checkpoint too, OUT/saved/checkpoint-STEP"),
    ] = False
    resume: Annotated[
        Literal["auto", "never"], Field(description="go on from the state that a kill left")
    ] = "auto"
    tensorboard: Annotated[bool, Field(description="write TensorBoard logs too")] = False

    @field_validator("train", mode="before")
    @classmethod
    def _train(cls, value: Any) -> Any:
        value = parse_pairs(value)
        if not isinstance(value, dict):
            raise ValueError("is not a mapping of parts to full, frozen or lora")  # noqa: TRY004
        return {part: parse_how(how) for part, how in value.items()}

    @field_validator("lr_by_part", mode="before")
    @classmethod
    def _rates(cls, value: Any) -> Any:
        return parse_pairs(value)

    @field_validator("keep", "probe", "fsdp", mode="before")
    @classmethod
    def _yaml(cls, value: Any, info: ValidationInfo) -> Any:
        value = parse_mapping(value)
        if info.field_name == "fsdp" and value is True:  # as Trainer's own key
            return {}
        if value is not None and not isinstance(value, dict):
            raise ValueError("is not a mapping; write {KEY: VALUE, ...}")
        return value

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("--steps, --epochs: give exactly one of the two")
        if self.batch % self.micro_batch:
            raise ValueError(
                f"--batch {self.batch} is not a multiple of --micro-batch {self.micro_batch}"
            )
        return self

    @model_validator(mode="after")
    def _saves(self) -> Self:
        if self.save_checkpoints and self.save_every is None:
            raise ValueError("--save-checkpoints: needs --save-every, the steps between them")
        return self

    @model_validator(mode="after")
    def _learns(self) -> Self:
        learning = {part for part in self.train if self.how(part) != "frozen"}
        if not learning:
            raise ValueError("--train: every part is frozen; name one that is full or lora")
        for part in self.lr_by_part:
            if part not in learning:
                raise ValueError(f"--lr-by-part: {part} is frozen; train it, or leave its rate out")
        if self.keep and self.keep.l2 and any(self.lora(part) for part in learning):
            raise ValueError(
                "--keep: l2 holds weights, and adapters are low-rank changes of them; use kl"
            )
        return self

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.fsdp and self.deepspeed:
            raise ValueError("--fsdp, --deepspeed: give one of the two")
        if self.fsdp and self.keep and self.keep.l2:
            raise ValueError("--keep: l2 is not served with --fsdp; use kl")
        if self.fsdp and self.probe:
            raise ValueError("--probe: is not served with --fsdp; run eval-matrix on the output")
        for name in ("keep", "probe", "save_every"):
            if self.deepspeed and getattr(self, name) is not None:
                raise ValueError(f"{flag(name)}: is not served with --deepspeed")
        return self

    @model_validator(mode="after")
    def _precise(self) -> Self:
        low = min([self.lr, *self.lr_by_part.values()])
        if self.precision == "bf16" and low < BF16_FLOOR and not self.force_bf16:
            raise ValueError(
                f"--precision bf16: at a rate of {low:g} its rounding undoes the steps (1.3 % of"
                " weights moved in 200 steps at 1e-6, against 84 % in float32); use bf16-mixed,"
                " a rate of at least 1e-5, or --force-bf16"
            )
        return self

    def how(self, part: Part) -> How:
        """How `part` is trained."""
        return self.train.get(part, "frozen")

    def lora(self, part: Part) -> Lora | None:
        """The adapters of `part`, if it has any."""
        how = self.how(part)
        return how.lora if isinstance(how, Choice) else None

    def full(self, part: Part) -> Full | None:
        """Which of the weights of `part` learn, when they are chosen by module or block."""
        how = self.how(part)
        if isinstance(how, Choice):
            return how.full
        return Full() if how == "full" else None

    def rate(self, part: Part) -> float:
        """The peak learning rate of `part`."""
        return self.lr_by_part.get(part, self.lr)
