"""The loss on answers, and its mean by source.

Logits are made only at places where some row learns: of a question's many tokens, none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mllmtool.models.encoding import IGNORED


def learning_places(labels: Tensor) -> Tensor:
    """Places whose next token some row learns; of labels (rows, tokens), shape (places,)."""
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits (rows, places, words) at targets (rows, places), 0 if ignored."""
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view_as(targets)


class Ledger:
    """Sums of loss and counts of learnt tokens by source, and how many tokens went by."""

    def __init__(self, sources: Sequence[str], device: torch.device) -> None:
        self.sources = tuple(sources)
        self.sums = torch.zeros(2, len(sources), dtype=torch.float64, device=device)
        self.tokens = torch.zeros(2, dtype=torch.float64, device=device)  # seen, learnt
        self._step = -1

    def begin(self, step: int, afresh: int) -> None:
        """Forget the losses before the step `afresh`, once it is reached."""
        if step != self._step:
            self._step = step
            if step == afresh:
                self.sums.zero_()

    def count(self, seen: Tensor, targets: Tensor) -> None:
        """Note tokens seen, by their mask, and learnt."""
        self.tokens += torch.stack([seen.sum(), (targets != IGNORED).sum()])

    def add(self, sources: Tensor, losses: Tensor, targets: Tensor) -> None:
        """Note losses (rows, places) of rows whose sources (rows,) are numbered, -1 for none."""
        named = sources >= 0
        by_row = torch.stack([losses.sum(dim=1), (targets != IGNORED).sum(dim=1)])
        self.sums.index_add_(1, sources[named], by_row[:, named].double())

    def means(self, totals: Tensor) -> dict[str, dict[str, Any]]:
        """Mean loss a learnt token and their number, by source; of `totals` over processes."""
        pairs = zip(self.sources, totals.T.tolist(), strict=True)
        return {
            name: {"loss": loss / tokens if tokens else None, "tokens": int(tokens)}
            for name, (loss, tokens) in pairs
        }
