"""Methods that add up task vectors and leave entries out: Model Breadcrumbs, Consensus."""

import numpy as np

from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.method import Fused, Prepared, moved, num_kept, summed
from mllmtool.fusion.settings import Settings
from mllmtool.fusion.thresholds import magnitudes, thresholds_of


def breadcrumbs(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \sum_t m_t \odot \tau_t$; $m_t$ drops outliers and small perturbations.

    Davari & Belilovsky 2024, section 3. Of each tensor the share `gamma` of the largest entries is
    dropped, the share `density` after them is kept, and the rest is dropped. Entries tied at
    either bound are kept.
    """
    found = inputs.over(lambda name: _bounds(inputs, name), "thresholds")
    bounds = dict(zip(inputs.names, found, strict=True))

    def fuse(piece: Piece) -> Fused:
        kept = []
        for tau, (low, high) in zip(piece.task_vectors, bounds[piece.tensor], strict=True):
            size = magnitudes(tau)
            kept.append(tau * ((size >= low) & (size <= high)))
        return Fused(moved(piece.base, piece.settings.scale * summed(kept)), num_kept(kept))

    return Prepared(fuse)


def leaves_room(settings: Settings) -> str | None:
    """What is wrong with a gamma that leaves less than the density."""
    if settings.gamma + settings.density <= 1:
        return None
    return f"--gamma: {settings.gamma:g} and density {settings.density:g} are more than 1 together"


def consensus(piece: Piece) -> Fused:
    r"""$\theta_0 + \lambda\, [\sum_t m_t \ge k] \odot \tau$, $\tau = \sum_t \tau_t$.

    Wang et al. 2024, sections 3 and 4: the TALL mask $m_t = [|\tau_t| \ge \lambda_t |\tau -
    \tau_t|]$ has the entries that matter to task t, `threshold` being $\lambda_t$; what matters to
    fewer than k = `votes` tasks is left out.
    """
    taus, settings = piece.task_vectors, piece.settings
    whole = summed(taus)
    votes = np.zeros(whole.shape, np.uint8)
    for tau in taus:
        votes += np.abs(tau) >= settings.threshold * np.abs(whole - tau)
    agreed = votes >= settings.votes
    kept = num_kept([tau * agreed for tau in taus])
    return Fused(moved(piece.base, settings.scale * (whole * agreed)), kept)


def has_voters(settings: Settings) -> str | None:
    """What is wrong with a number of votes that cannot be reached."""
    if settings.votes <= len(settings.weights):
        return None
    return f"--votes: {settings.votes:g} of {len(settings.weights)} --model"


def _bounds(inputs: Inputs, name: str) -> list[tuple[np.float32, np.float32]]:
    """The smallest and the largest magnitude that is kept, of each model."""
    settings, size = inputs.settings, inputs.base.info(name).size
    if not size:
        return [(np.float32(0), np.float32(0))] * len(inputs.models)
    dropped = min(size - 1, round(settings.gamma * size))
    last = min(size, max(dropped + 1, dropped + round(settings.density * size)))
    high = thresholds_of(inputs, name, dropped + 1)
    low = thresholds_of(inputs, name, last)
    return [(a.magnitude, b.magnitude) for a, b in zip(low, high, strict=True)]
