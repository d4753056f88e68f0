"""Terms of the loss that hold the model to its base; off unless asked for.

Each is a mean over the samples of an optimizer step, whatever the micro-batches and processes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from mllmtool.configs.finetune import Keep
from mllmtool.models.encoding import IGNORED
from mllmtool.training.adapters import is_adapter
from mllmtool.training.losses import learning_places

Inputs = Mapping[str, Tensor]
Logits = Callable[[Inputs, Tensor], Tensor]  # inputs and places -> (rows, places, words)


class Distance:
    r"""$\frac{1}{2} \sum_i (\theta_i - \theta^0_i)^2$ over what learns. L2-SP, Li et al. 2018."""

    def __init__(self, learning: Mapping[str, nn.Parameter]) -> None:
        self._pairs = [(p, p.detach().clone()) for p in learning.values()]

    def __call__(self) -> Tensor:
        """The distance now."""
        sums = [(now - base).float().square().sum() for now, base in self._pairs]
        return torch.stack(sums).sum() / 2


def needs_copy(keep: Keep, learning: Iterable[str]) -> bool:
    """Whether the base must be held as a second model: not where only adapters learn."""
    return keep.kl > 0 and not all(map(is_adapter, learning))


def divergence(tuned: Tensor, base: Tensor, targets: Tensor, temperature: float) -> Tensor:
    r"""$T^2\,KL(p_{base} \| p_{tuned})$ on learnt tokens, a mean by sample, summed over samples.

    Logits (rows, places, words) at targets (rows, places). Hinton et al. 2015 for the $T^2$, Li and
    Hoiem 2016 for the base as teacher.
    """
    ours = functional.log_softmax(tuned.float() / temperature, -1)
    theirs = functional.log_softmax(base.float() / temperature, -1)
    each = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    learnt = targets != IGNORED
    return ((each * learnt).sum(1) / learnt.sum(1)).sum() * temperature**2


class Keeper:
    """Both terms, and what they came to.

    `noted` is (terms, 2): the unweighted value at the first step and at the last one.
    """

    def __init__(self, keep: Keep, learning: Mapping[str, nn.Parameter], teacher: Logits) -> None:
        self.keep = keep
        self.weights = {"l2": keep.l2, "kl": keep.kl}
        self.noted = torch.zeros(2, 2, dtype=torch.float64)
        self._distance = Distance(learning) if keep.l2 else None
        self._teacher, self._step = teacher, -1

    def distance(self) -> Tensor | None:
        """The distance of the weights, if it counts."""
        return self._distance() if self._distance else None

    def divergence(self, inputs: Inputs, labels: Tensor, student: Logits) -> Tensor | None:
        """The divergence of the answers, summed over the rows of a micro-batch, if it counts."""
        if not self.keep.kl:
            return None
        places = learning_places(labels)
        with torch.no_grad():
            base = self._teacher(inputs, places)
        return divergence(
            student(inputs, places), base, labels[:, places + 1], self.keep.temperature
        )

    def note(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Count a micro-batch's share of a step in."""
        if step != self._step:
            self._step = step
            self.noted[:, 1] = 0
        for row, name in enumerate(self.weights):
            if name in values:
                self.noted[row, 1] += values[name].detach().double().cpu()
        if step == 0:
            self.noted[:, 0] = self.noted[:, 1]

    def describe(self, noted: Tensor) -> dict[str, dict[str, float]]:
        """For the report; `noted` summed over processes."""
        return {
            name: {"weight": weight, "first": first, "last": last}
            for (name, weight), (first, last) in zip(
                self.weights.items(), noted.tolist(), strict=True
            )
            if weight
        }


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The base inside an adapted model."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model without dropout; its modules are put back as they were."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
