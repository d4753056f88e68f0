"""Named choices, and which of a model's tensors they reach."""

import re
from dataclasses import dataclass

from mllmtool.configs.base import Part
from mllmtool.configs.tailor import Others, Preset, TailorConfig
from mllmtool.tailoring.matrix import Choices, Solver


@dataclass(frozen=True)
class Named:
    """What a preset chooses where no flag does.

    `blocks_only`: Linear layers outside numbered blocks are not tailored; the projector's go back
    to the base and a head stays tuned, as in the released code.
    """

    solver: Solver = "exact"
    salience_weight: float = 0.5
    others: Others = "tailor"
    blocks_only: bool = False


PRESETS: dict[Preset, Named] = {
    "paper": Named(),
    "released": Named("released", salience_weight=0.8, others="sft", blocks_only=True),
    "anchored": Named(),
}


def choices_of(config: TailorConfig) -> Choices:
    """The preset's choices, with the flags that were given in their place."""
    named = PRESETS[config.named_preset]
    weight = config.salience_weight
    return Choices(
        density=config.sparsity,
        anchor_weight=config.anchor_weight if config.named_preset == "anchored" else 0.0,
        salience_weight=named.salience_weight if weight is None else weight,
        damping=config.damping,
        solver=config.solver or named.solver,
        strength=config.strength,
        mask=config.mask,
        damping_by=config.damping_by,
        combine=config.combine,
    )


def treatment_of(config: TailorConfig, name: str, part: Part, is_linear: bool) -> Others:
    """What becomes of a tuned tensor; `is_linear` for the weight of a Linear layer."""
    if part not in config.parts or not _in_blocks(config, name, part):
        return "pre"
    named = PRESETS[config.named_preset]
    if not is_linear:
        return config.others or named.others
    if named.blocks_only and block_of(name) is None:
        return "sft" if part == "language" else "pre"
    return "tailor"


def _in_blocks(config: TailorConfig, name: str, part: Part) -> bool:
    """Whether the tensor is in none of the part's numbered blocks, or in one that is asked for."""
    numbers, block = config.block_numbers.get(part), block_of(name)
    return numbers is None or block is None or block[1] in numbers


def block_of(name: str) -> tuple[str, int] | None:
    """The stack and the number of the block that a tensor is in: `model.layers`, 3."""
    found = re.search(r"^(.*?)\.(\d+)\.", name)
    return (found[1], int(found[2])) if found else None
