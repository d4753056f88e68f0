"""Config of `finetune`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mllmtool.configs.base import PARTS, Config, Part


class Lora(BaseModel):
    """Low-rank adapters on every Linear layer of a part; merged into the output checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


How = Literal["frozen", "full"] | Lora


class FinetuneConfig(Config):
    """Train chosen parts of a checkpoint on samples, and prove what moved."""

    model: Annotated[str, Field(description="checkpoint to start from")]
    samples: Annotated[str, Field(description="training samples, JSONL")]
    images: Annotated[
        str | None, Field(description="folder of the images; default: the samples' own folder")
    ] = None
    train: Annotated[
        dict[Part, How],
        Field(
            description="PART=full|frozen|lora|lora:RANK, repeated; parts not named are frozen"
            " (default language=full)"
        ),
    ] = {"language": "full"}  # noqa: RUF012 (pydantic copies it)
    lr: Annotated[float, Field(description="peak learning rate", gt=0)] = 1e-6
    steps: Annotated[int | None, Field(description="optimizer steps", ge=1)] = None
    epochs: Annotated[float | None, Field(description="passes over the samples", gt=0)] = None
    batch: Annotated[int, Field(description="samples an optimizer step", ge=1)] = 16
    micro_batch: Annotated[int, Field(description="samples a forward pass", ge=1)] = 1
    schedule: Annotated[
        Literal["cosine", "linear", "constant"], Field(description="learning rate after warm-up")
    ] = "cosine"
    warmup: Annotated[float, Field(description="share of the steps that warm up", ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(description="AdamW weight decay", ge=0)] = 0.0
    max_length: Annotated[
        int, Field(description="tokens a sample, image tokens included; longer is an error", ge=1)
    ] = 16384
    precision: Annotated[
        Literal["float32", "bf16-mixed"],
        Field(description="bf16-mixed: autocast; trainable parts are float32 either way"),
    ] = "float32"
    save_every: Annotated[
        int | None, Field(description="optimizer steps between resumable states", ge=1)
    ] = None
    resume: Annotated[
        Literal["auto", "never"], Field(description="go on from the state that a kill left")
    ] = "auto"

    @field_validator("train", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            value = dict(_pair(item) for item in value)
        if not isinstance(value, dict):
            raise ValueError("is not a mapping of parts to full, frozen or lora")  # noqa: TRY004
        return {part: _how(how) for part, how in value.items()}

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("--steps, --epochs: give exactly one of the two")
        if self.batch % self.micro_batch:
            raise ValueError(
                f"--batch {self.batch} is not a multiple of --micro-batch {self.micro_batch}"
            )
        if all(how == "frozen" for how in self.train.values()):
            raise ValueError("--train: every part is frozen; name one that is full or lora")
        return self

    def how(self, part: Part) -> How:
        """How `part` is trained."""
        return self.train.get(part, "frozen")


def _pair(text: str) -> tuple[str, str]:
    part, sign, how = text.partition("=")
    if not sign:
        raise ValueError(f"{text!r} is not PART=HOW; parts are {', '.join(PARTS)}")
    return part, how


def _how(how: Any) -> Any:
    if isinstance(how, str) and how.split(":")[0] == "lora":
        rank = how.partition(":")[2] or "8"
        if not rank.isdecimal():
            raise ValueError(f"{how!r} is not lora:RANK")
        return Lora(rank=int(rank), alpha=2 * int(rank))
    if isinstance(how, dict) and "lora" in how:
        return how["lora"] or {}
    return how
