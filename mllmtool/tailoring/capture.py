"""Record the second moments of the inputs of a model's parameters, by hooks on forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mllmtool.errors import NumericError
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site, Use

Batch = Mapping[str, Tensor]
ROWS = 512  # of a Gram matrix, that are added to at a time
MASKS = {"text": "attention_mask", "question": "qformer_attention_mask"}  # by sequence


class Recorder:
    """Sums over tokens, one a use; padding is left out.

    `linear` and `convolution`: (C, C), the upper triangle of the Gram matrix, one tensor for those
    that are given one input. `lookup`: (V,), counts. `scale`: (C,), squares. `constant`: (1,), the
    number of passes.
    """

    def __init__(self, uses: Sequence[Use]) -> None:
        self.uses = uses
        self.sums: dict[Use, Tensor] = {}
        self.tokens: dict[Use, int] = dict.fromkeys(uses, 0)
        self._batch: Batch = {}
        self._last: tuple[Tensor, Use] | None = None

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """Hooks on, while what is run is of this batch."""
        self._batch, self._last = batch, None
        hooks = [
            use.module.register_forward_pre_hook(partial(self._see, use), with_kwargs=True)
            for use in self.uses
        ]
        try:
            yield
        finally:
            self._last = None
            for hook in hooks:
                hook.remove()

    def count(self, use: Use) -> None:
        """Count one pass of a constant."""
        self._add(use, torch.ones(1), 1)

    def _see(self, use: Use, _: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()))
        if use.kind == "constant":
            self.count(use)
        elif use.kind == "lookup":
            ids = self._counted(use, inputs).flatten()
            entries = len(getattr(use.module, use.parameter))
            self._add(use, torch.bincount(ids, minlength=entries), len(ids))
        elif use.kind == "scale":
            responses = _rows(self._counted(use, _responses(use, args, kwargs)))
            self._add(use, responses.float().square().sum(dim=0), len(responses))
        else:
            self._add_gram(use, inputs)

    def _add_gram(self, use: Use, inputs: Tensor) -> None:
        """Add the features' Gram matrix, once for modules that are given the same tensor."""
        features = inputs if use.kind == "linear" else _patches(use, inputs)
        features = _rows(self._counted(use, features))
        if self._last and self._last[0] is inputs and self._last[1].shares(use):
            self.sums[use] = self.sums[self._last[1]]
            self.tokens[use] += len(features)
            return
        features = features.float()
        if use.biased:
            features = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
        self._add_products(use, features)
        self._last = (inputs, use)

    def _add_products(self, use: Use, features: Tensor) -> None:
        """Add to the upper triangle, some rows at a time: half the products, and small ones."""
        columns = features.shape[1]
        if use not in self.sums:
            self.sums[use] = features.new_zeros(columns, columns, dtype=torch.float64)
        for start in range(0, columns, ROWS):
            here = slice(start, start + ROWS)
            self.sums[use][here, start:] += features[:, here].T @ features[:, start:]
        self.tokens[use] += len(features)

    def _add(self, use: Use, total: Tensor, tokens: int) -> None:
        if use in self.sums:
            self.sums[use] += total
        else:
            self.sums[use] = total.double()
        self.tokens[use] += tokens

    def _counted(self, use: Use, features: Tensor) -> Tensor:
        """Those on tokens of the samples; of all others, such as image patches, all count.

        Features are (samples, tokens, ...). A Q-Former's queries come before its question.
        """
        mask = self._batch.get(MASKS[use.sequence]) if use.sequence else None
        if mask is None or features.ndim < 2 or len(features) not in (1, len(mask)):
            return features
        features = features.expand(len(mask), *features.shape[1:])  # positions are given once
        before = features.shape[1] - mask.shape[1]
        if before < 0 or (before and use.sequence == "text"):
            return features
        mask = torch.cat([mask.new_ones(len(mask), before), mask], dim=1)
        return features[mask.to(features.device).bool()]


def site_moment(site: Site, moments: Mapping[Use, Moment], weight: Callable[[], Tensor]) -> Moment:
    """The moment of the site's input; of several uses, the sum of their relative errors.

    A tied tensor's uses have outputs of unlike units (hidden states and logits), so each moment is
    divided by the mean square of the model's own output there, with its `weight`.
    """
    if len(site.uses) == 1:
        return moments[site.uses[0]]
    tuned = weight().double()
    return reduce(Moment.plus, [_relative(moments[use], tuned) for use in site.uses])


def use_moments(recorder: Recorder, names: Mapping[Use, str]) -> dict[Use, Moment]:
    """Means over tokens, in float32 as they are kept; 0 tokens where no pass came.

    Raises:
        NumericError: an input is NaN or Inf; `names` are of the tensors that it meets.
    """
    means: dict[int, Tensor] = {}  # by the sum, which several uses may share
    return {use: _use_moment(use, recorder, means, names[use]) for use in recorder.uses}


def _relative(moment: Moment, weight: Tensor) -> Moment:
    moment = moment.to(weight.dtype)
    energy = moment.energy(weight)
    return moment.scaled(1 / energy) if energy > 0 else moment


def _use_moment(use: Use, recorder: Recorder, means: dict[int, Tensor], name: str) -> Moment:
    tokens, zero = recorder.tokens[use], torch.zeros(1, 1)
    if not tokens:
        return Moment(zero)
    total = recorder.sums[use]
    if id(total) not in means:
        mean = total.div_(tokens).float().cpu()
        mixes = use.kind in ("linear", "convolution")
        means[id(total)] = _mirrored(mean) if mixes else mean
        total.untyped_storage().resize_(0)  # its memory is wanted for the next
    mean = means[id(total)]
    if not torch.isfinite(mean).all():
        raise NumericError(f"{name}: its input is NaN or Inf on these samples")
    if use.kind in ("linear", "convolution"):
        return Moment(zero, mean, tokens)
    rows = (-1, 1) if use.kind == "lookup" else (1, -1)
    return Moment(mean.reshape(rows), tokens=tokens)


def _mirrored(upper: Tensor) -> Tensor:
    """The symmetric matrix of an upper triangle, in its place."""
    for start in range(0, len(upper), ROWS):
        here, behind = slice(start, start + ROWS), slice(start + ROWS, None)
        corner = upper[here, here]
        upper[here, here] = corner.triu() + corner.triu(1).T
        upper[behind, here] = upper[here, behind].T
    return upper


def _rows(features: Tensor) -> Tensor:
    return features.reshape(-1, features.shape[-1])


class _Bare(nn.Module):
    """A module without its hooks, to ask how it responds to its parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.forward(*args, **kwargs)


def _responses(use: Use, args: Any, kwargs: Any) -> Tensor:
    """What the parameter multiplies, channel by channel: (..., C).

    The module is affine in its parameters, so it is its output with ones there less its output with
    zeros; that serves LayerNorm, every RMSNorm, and layer scales alike.
    """
    bare = _Bare(use.module)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in bare.named_parameters()}
    chosen = f"module.{use.parameter}"
    ones = {**zeros, chosen: torch.ones_like(zeros[chosen])}
    outputs = [functional_call(bare, values, args, kwargs) for values in (ones, zeros)]
    difference: Tensor = outputs[0] - outputs[1]
    return difference


def _patches(use: Use, inputs: Tensor) -> Tensor:
    """What a convolution multiplies with its kernel: (..., channels * kernel entries)."""
    module: Any = use.module
    axes = len(module.kernel_size)
    for axis, (size, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True)):
        inputs = inputs.unfold(2 + axis, size, stride)
    return inputs.movedim(1, 1 + axes).flatten(start_dim=1 + axes)
