"""Record the second moments of the inputs of a model's parameters, by hooks on forward passes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mllmtool.errors import InputError, NumericError
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site, Use

Batch = Mapping[str, Tensor]


def record_moments(
    model: nn.Module, sites: Sequence[Site], batches: Iterable[Batch]
) -> dict[str, Moment]:
    """Moments of the sites' inputs over all batches, by the name of a site's first tensor.

    Inputs at padding, where `attention_mask` is 0, are left out. A site that no pass reaches has a
    moment of 0 tokens.

    Raises:
        NumericError: an input is NaN or Inf.
    """
    recorder = Recorder([use for site in sites for use in site.uses])
    with recorder.watching(), torch.inference_mode():
        for batch in batches:
            recorder.begin(batch["attention_mask"])
            model(**{key: value for key, value in batch.items() if key != "labels"})
    return {site.names[0]: _moment(site, recorder) for site in sites}


class Recorder:
    """Sums over tokens, one a use.

    `linear` and `convolution`: (C, C), the Gram matrix. `lookup`: (V,), counts. `scale`: (C,),
    squares. `constant`: (1,), the number of passes.
    """

    def __init__(self, uses: Sequence[Use]) -> None:
        self.uses = uses
        self.sums: dict[Use, Tensor] = {}
        self.tokens: dict[Use, int] = dict.fromkeys(uses, 0)
        self._mask = torch.empty(0)
        self._last: tuple[Tensor, Use, Tensor] | None = None

    def begin(self, mask: Tensor) -> None:
        """Say which tokens of the coming pass count: (samples, tokens)."""
        self._mask = mask.reshape(-1).bool()
        self._last = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on, while in the context."""
        hooks = [
            use.module.register_forward_pre_hook(partial(self._see, use), with_kwargs=True)
            for use in self.uses
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _see(self, use: Use, _: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()))
        if use.kind == "constant":
            self._add(use, torch.ones(1), 1)
        elif use.kind == "lookup":
            ids = self._counted(use, inputs.reshape(-1))
            entries = len(getattr(use.module, use.parameter))
            self._add(use, torch.bincount(ids, minlength=entries), len(ids))
        elif use.kind == "scale":
            responses = self._counted(use, _responses(use, args, kwargs))
            self._add(use, responses.float().square().sum(dim=0), len(responses))
        else:
            features = inputs if use.kind == "linear" else _patches(use, inputs)
            features = self._counted(use, features.reshape(-1, features.shape[-1]))
            self._add(use, self._gram(use, inputs, features), len(features))

    def _add(self, use: Use, total: Tensor, tokens: int) -> None:
        self.sums[use] = self.sums[use] + total if use in self.sums else total.double()
        self.tokens[use] += tokens

    def _counted(self, use: Use, features: Tensor) -> Tensor:
        """The language model's features lie on the samples' tokens, of which padding is dropped."""
        if use.part == "language" and len(features) == len(self._mask):
            return features[self._mask]
        return features

    def _gram(self, use: Use, inputs: Tensor, features: Tensor) -> Tensor:
        """Gram matrix of the features, made once for modules that are given the same tensor."""
        if self._last and self._last[0] is inputs and self._last[1].shares(use):
            return self._last[2]
        features = features.float()
        if use.biased:
            features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        gram = features.T @ features
        self._last = (inputs, use, gram)
        return gram


def _moment(site: Site, recorder: Recorder) -> Moment:
    """The moment of the site's input; of several uses, the sum of their relative errors.

    A tied tensor's uses have outputs of unlike units (hidden states and logits), so each moment is
    divided by the mean square of the model's own output there.
    """
    moments = [_use_moment(use, recorder) for use in site.uses]
    for moment in moments:
        for tensor in (moment.diagonal, moment.full):
            if tensor is not None and not torch.isfinite(tensor).all():
                raise NumericError(f"{site.names[0]}: its input is NaN or Inf on these samples")
    if len(moments) == 1:
        return moments[0]
    return reduce(Moment.plus, map(_relative, site.uses, moments))


def _relative(use: Use, moment: Moment) -> Moment:
    weight: Tensor = getattr(use.module, use.parameter).detach().double()
    energy = moment.energy(weight)
    return moment.scaled(1 / energy) if energy > 0 else moment


def _use_moment(use: Use, recorder: Recorder) -> Moment:
    tokens = recorder.tokens[use]
    if not tokens:
        return Moment(torch.zeros(1, 1, dtype=torch.float64))
    mean = recorder.sums[use] / tokens
    if use.kind in ("linear", "convolution"):
        return Moment(torch.zeros(1, 1, dtype=torch.float64), mean, tokens)
    rows = (-1, 1) if use.kind == "lookup" else (1, -1)
    return Moment(mean.reshape(rows), tokens=tokens)


class _Bare(nn.Module):
    """A module without its hooks, to ask how it responds to its parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.forward(*args, **kwargs)


def _responses(use: Use, args: Any, kwargs: Any) -> Tensor:
    """What the parameter multiplies, channel by channel: (tokens, C).

    The module is affine in its parameters, so it is its output with ones there less its output with
    zeros; that serves LayerNorm, every RMSNorm, and layer scales alike.
    """
    bare = _Bare(use.module)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in bare.named_parameters()}
    chosen = f"module.{use.parameter}"
    ones = {**zeros, chosen: torch.ones_like(zeros[chosen])}
    outputs = [functional_call(bare, values, args, kwargs) for values in (ones, zeros)]
    difference: Tensor = outputs[0] - outputs[1]
    return difference.reshape(-1, difference.shape[-1])


def _patches(use: Use, inputs: Tensor) -> Tensor:
    """What a convolution multiplies with its kernel: (..., channels * kernel entries).

    Raises:
        InputError: it has padding, dilation or groups.
    """
    module: Any = use.module
    plain = module.groups == 1 and set(module.dilation) == {1}
    if not plain or (module.padding != "valid" and any(module.padding)):
        raise InputError(
            f"{type(module).__name__}: a convolution with padding, dilation or groups cannot be"
            " tailored; pass --others pre or --others sft"
        )
    axes = len(module.kernel_size)
    for axis, (size, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True)):
        inputs = inputs.unfold(2 + axis, size, stride)
    return inputs.movedim(1, 1 + axes).flatten(start_dim=1 + axes)
