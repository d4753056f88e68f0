"""Streams over whole sets of batches, and a slow transcription of what they record."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mllmtool.checkpoints import Checkpoint
from mllmtool.models.loading import load_model
from mllmtool.tailoring.learning import Learned
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site, Use
from mllmtool.tailoring.stream import Place, Stream, steps

Batches = Sequence[dict[str, Tensor]]


def streamed(
    learned: Learned, batches: Batches, base: Checkpoint | None = None, place: Place | None = None
) -> dict[str, Moment]:
    """The task's moments by the first tensor of a site; nothing is tailored between the units."""
    base = base or learned.skeleton.checkpoint
    stream = Stream(learned, base, [batches, ()], place or Place())
    found = [step.maps[0] for step in steps([stream], follow=False)]
    return {lead: each.task.to(torch.float64) for maps in found for lead, each in maps.items()}


class Whole:
    """Means over what reaches each module of a whole model, a sample at a time: nothing is padded.

    Sums in float64, by the definitions in the table of `tailoring.sites`, of hooks on modules.
    """

    def __init__(self, path: Path, learned: Learned, batches: Batches) -> None:
        model = load_model(path)
        paths = {module: name for name, module in learned.skeleton.model.named_modules()}
        self.sums: dict[Use, Tensor] = {}
        self.tokens: dict[Use, int] = {}
        for site in learned.sites:
            for use in site.uses:
                module = model.get_submodule(paths[use.module])
                module.register_forward_hook(partial(self._see, site, use), with_kwargs=True)
        with torch.no_grad():
            for batch in batches:
                model(**{key: value for key, value in batch.items() if key != "labels"})

    def mean(self, use: Use) -> Tensor:
        """The full matrix, the row of squares or counts, or 1."""
        return self.sums[use] / self.tokens[use]

    def _see(
        self, site: Site, use: Use, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()))
        if use.kind == "lookup":
            weight: Any = module.weight
            total = torch.zeros(len(weight), dtype=torch.float64)
            for token in inputs.flatten().tolist():
                total[token] += 1
            number = inputs.numel()
        elif use.kind == "constant":
            total, number = torch.ones(1, dtype=torch.float64), 1
        else:
            rows = _scaled(use, module, output) if use.kind == "scale" else _rows(module, inputs)
            if len(site.names) == 2:
                rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
            total = rows.square().sum(dim=0) if use.kind == "scale" else rows.T @ rows
            number = len(rows)
        self.sums[use] = self.sums.get(use, torch.zeros(())) + total
        self.tokens[use] = self.tokens.get(use, 0) + number


def _rows(module: Any, inputs: Tensor) -> Tensor:
    """What the weight of a Linear layer or a convolution is multiplied with."""
    if isinstance(module, nn.Conv2d):
        size, stride = module.kernel_size, module.stride
        inputs = nn.functional.unfold(inputs, size, stride=stride).movedim(1, 2)
    return inputs.double().reshape(-1, module.weight[0].numel())


def _scaled(use: Use, module: Any, output: Tensor) -> Tensor:
    """What a norm's weight is multiplied with, from the output; a bias with 1."""
    rows = output.double().reshape(-1, output.shape[-1])
    if use.parameter == "bias":
        return torch.ones_like(rows)
    bias = getattr(module, "bias", None)
    weight: Tensor = module.weight.double()
    return (rows - (0 if bias is None else bias.double())) / weight
