"""Config of `tailor`."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mllmtool.configs.base import PARTS, Config, Part, Share, flag
from mllmtool.configs.patch import Overlap
from mllmtool.configs.selection import parse_mapping
from mllmtool.configs.sweep import parse_sweep, sweep_points

Preset = Literal["paper", "released", "anchored"]
Solver = Literal["exact", "sweep", "none"]
Inputs = Literal["tailored", "tuned"]
Others = Literal["tailor", "pre", "sft"]
Normalise = Literal["row", "block", "rank", "none"]
Scope = Literal["matrix", "block", "row"]
DampingBy = Literal["mean", "column"]
Combine = Overlap | Literal["joint"]
SWEPT = {"density": "sparsity"}  # what a sweep calls a field otherwise
Swept = Literal["density", "anchor-weight", "salience-weight", "damping", "strength"]


def check_blocks(text: str) -> str:
    """Refuse what is no range of blocks.

    Raises:
        ValueError: it is not 20-31, 20 or PART=20-31.
    """
    found = re.fullmatch(r"((vision|projector|language)=)?(\d+)(-(\d+))?", text)
    if not found or int(found[5] or found[3]) < int(found[3]):
        raise ValueError("is no range of blocks such as 20-31 or vision=0-3")
    return text


class MaskRule(BaseModel):
    """Finer choices of what is kept; blocks are of 128 columns.

    `sensitivity` is of reverting the change or of zeroing the weight; its `denominator` the full
    inverse's diagonal or the sweep's, which has the columns to the left frozen. Scores are
    comparable after `normalise`, and compete within a `scope`. `dead` inputs are reverted or follow
    the mask; weights that training left alone are not `eligible`, or may carry corrections; the
    density is of all weights or of the changed ones (`count`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sensitivity: Literal["change", "weight"] = "change"
    denominator: Literal["full", "sweep"] = "full"
    normalise: Normalise = "row"
    scope: Scope = "matrix"
    dead: Literal["revert", "mask"] = "revert"
    eligible: Literal["changed", "all"] = "changed"
    count: Literal["all", "changed"] = "all"


class TailorConfig(Config):
    """Keep a sparse, decorated patch of a fine-tuned checkpoint on its base (Model Tailor)."""

    pre: Annotated[str, Field(description="base checkpoint")]
    sft: Annotated[
        tuple[str, ...],
        Field(
            description="fine-tuned checkpoint or LoRA adapter; repeated: patches are fused",
            min_length=1,
        ),
    ]
    sparsity: Annotated[
        Share, Field(description="share of each task vector that is kept, the paper's name", gt=0)
    ] = 0.1
    calibration: Annotated[
        tuple[str, ...],
        Field(
            description="samples of the target task, one a --sft; default: the training data"
            " that SFT/report.json names"
        ),
    ] = ()
    anchor: Annotated[
        str | None, Field(description="samples of the old tasks, for the anchored objective")
    ] = None
    anchor_weight: Annotated[
        float, Field(description="weight of the old tasks' term, lambda", ge=0)
    ] = 1.0
    images: Annotated[
        str | None, Field(description="folder of the images; default: each file's own folder")
    ] = None
    preset: Annotated[
        Preset | None,
        Field(description="named choices; default: anchored with --anchor, else paper"),
    ] = None
    num_samples: Annotated[
        int, Field(description="calibration and anchor samples used, each", ge=1)
    ] = 128
    held_out: Annotated[
        int,
        Field(description="further samples of the task, to measure errors on; 0 for none", ge=0),
    ] = 16
    batch: Annotated[int, Field(description="samples a calibration forward pass", ge=1)] = 8
    inputs: Annotated[
        Inputs | None,
        Field(
            description="what the blocks behind a tailored one see: its outputs as they will be, or"
            " the tuned ones (default tailored; tuned where moments are kept or swept)"
        ),
    ] = None
    save_moments: Annotated[
        str | None,
        Field(description="directory to make of the moments, for later runs with --moments"),
    ] = None
    moments: Annotated[
        str | None,
        Field(description="directory that --save-moments made, in place of samples and passes"),
    ] = None
    device: Annotated[
        str, Field(description="of the forward passes: auto, cpu, cuda or cuda:N", exclude=True)
    ] = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], Field(description="of the forward passes")
    ] = "float32"
    cache_dir: Annotated[
        str | None,
        Field(description="folder to keep activations in; default: in memory", exclude=True),
    ] = None
    salience_weight: Annotated[
        Share | None,
        Field(
            description="w of a Linear layer's fused score; 1 salience, 0 sensitivity (default"
            " 0.5; released: 0.8)"
        ),
    ] = None
    damping: Annotated[float, Field(description="ridge as a share of the mean diagonal", gt=0)] = (
        0.01
    )
    damping_by: Annotated[
        DampingBy, Field(description="one ridge for all columns, or each in proportion to its own")
    ] = "mean"
    mask: Annotated[
        MaskRule,
        BeforeValidator(parse_mapping),
        Field(
            description="finer choices of what is kept, as YAML, such as {scope: row, normalise:"
            " rank}"
        ),
    ] = MaskRule()
    solver: Annotated[
        Solver | None,
        Field(
            description="decoration of the kept weights (default exact; released has its own); none"
            " without samples keeps the largest changes"
        ),
    ] = None
    strength: Annotated[Share, Field(description="share of the decoration applied")] = 1.0
    parts: Annotated[
        tuple[Part, ...], Field(description="parts to tailor; the others are as in the base")
    ] = PARTS
    blocks: Annotated[
        tuple[Annotated[str, AfterValidator(check_blocks)], ...],
        Field(
            description="numbered blocks to tailor, 20-31 of the language model or PART=0-3; the"
            " part's other blocks are as in the base"
        ),
    ] = ()
    others: Annotated[
        Others | None,
        Field(
            description="parameters outside Linear layers: tailored too, base or fine-tuned"
            " (default tailor; released: sft)"
        ),
    ] = None
    combine: Annotated[
        Combine,
        Field(
            description="several --sft: their patches' mean where they overlap, sum, average over"
            " all models, or sign election; or joint, one least squares of all moments"
        ),
    ] = "mean"
    sweep: Annotated[
        dict[Swept, Annotated[tuple[float, ...], Field(min_length=1)]],
        BeforeValidator(parse_sweep),
        Field(
            description="values to try, each combination a patch: density=0.05,0.1"
            " anchor-weight=0.3,1,3",
            json_schema_extra={"words": True},
        ),
    ] = {}  # noqa: RUF012 (pydantic copies it)
    format: Annotated[Literal["checkpoint", "patch"], Field(description="what to write")] = (
        "checkpoint"
    )
    resume: Annotated[
        Literal["auto", "never"], Field(description="go on from the block that a kill left")
    ] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.calibration and len(self.calibration) != len(self.sft):
            raise ValueError(
                f"--calibration: {len(self.calibration)} given for {len(self.sft)} --sft"
            )
        if self.preset == "anchored" and self.anchor is None and self.moments is None:
            raise ValueError("--preset anchored: needs --anchor")
        if self.preset in ("paper", "released") and self.anchor is not None:
            raise ValueError(f"--anchor: is not read by --preset {self.preset}; use anchored")
        if self.preset == "released":
            for key in ("solver", "mask", "damping_by"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(
                        f"{flag(key)}: is not read by --preset released, which has its own"
                    )
        self._check_moments()
        self._check_sweep()
        return self

    def _check_sweep(self) -> None:
        if "anchor-weight" in self.sweep and self.named_preset != "anchored":
            raise ValueError("--sweep anchor-weight: needs --anchor")
        if self.sweep and self.inputs == "tailored":
            raise ValueError("--inputs tailored: differs from patch to patch of a --sweep")
        self.points()

    def _check_moments(self) -> None:
        for key in ("calibration", "anchor", "save_moments"):
            if self.moments is not None and getattr(self, key):
                raise ValueError(f"{flag(key)}: is not read with --moments, which are recorded")
        if self.inputs == "tailored" and (self.moments or self.save_moments):
            raise ValueError(
                "--inputs tailored: moments that are kept are of the tuned model; leave it out"
            )

    @property
    def follows(self) -> bool:
        """Whether later blocks see tailored inputs."""
        kept = self.moments is not None or self.save_moments is not None
        return self.inputs != "tuned" and not kept and not self.sweep

    @property
    def block_numbers(self) -> dict[str, set[int]]:
        """The numbers asked for, by part; a part that is not named has all of its blocks."""
        found: dict[str, set[int]] = {}
        for text in self.blocks:
            part, _, span = text.rpartition("=")
            first, _, last = span.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            found.setdefault(part or "language", set()).update(numbers)
        return found

    def points(self) -> dict[str, Self]:
        """What a sweep asks for, by a name that is fit for a folder; itself where there is none.

        Raises:
            ConfigError: a value is out of its range.
        """
        return sweep_points(self, self.sweep, SWEPT)

    @property
    def named_preset(self) -> Preset:
        """The preset asked for, or the one that the data calls for."""
        return self.preset or ("paper" if self.anchor is None else "anchored")

    def default_out(self) -> str:
        """`ft` -> `ft-tailored`."""
        return f"{Path(self.sft[0])}-tailored"
