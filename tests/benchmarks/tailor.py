"""What decoration costs beside the sweeps that it replaces, and what it gains. Not in the suite.

    OMP_NUM_THREADS=1 python tests/benchmarks/tailor.py

Parts (b) and (c), of memory, are `tailor_memory.py`.

(a) One layer of 2048 x 2048 and one of 2048 x 5504, float32, density 0.1; correlated inputs whose
spectrum falls as 1 / i^1.2, a change that lies in it as a gradient's does. Each solver gets the
same moments and the same mask: `exact` solves on what is kept; `our sweep` goes over the columns,
as does `SparseGPT`, a transcription of that method's loop in plain PyTorch. A row: CPU seconds,
those over the two sweeps', and the error left, in shares of reverting everything. `mask` is the
cost of choosing the mask, which is none of the three's.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mllmtool.tailoring.decorate import correction
from mllmtool.tailoring.matrix import Choices, Matrix, tailor
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sweep import sweep

ROWS, DENSITY, DAMPING, DECAY = 2048, 0.1, 0.01, 1.2
T = TypeVar("T")


def main() -> None:
    """Build, run, print."""
    torch.set_num_threads(1)
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}\n")
    for columns in (2048, 5504):
        layer(columns)


def layer(columns: int) -> None:
    """One layer by three solvers."""
    moment, change = problem(columns)
    matrix = Matrix(torch.zeros_like(change), change, (columns,), moment)
    seconds, masked = timed(lambda: tailor(matrix, Choices(DENSITY, solver="none")))
    sys.stdout.write(f"\n{ROWS} x {columns}: mask {seconds:.2f} s\n")
    sys.stdout.write(f"{'':12} {'CPU s':>7} {'/ours':>6} {'/theirs':>7} {'error':>8}  /theirs\n")
    solvers: dict[str, Callable[[], Tensor]] = {
        "SparseGPT": lambda: sparse_gpt(moment, change, masked.mask),
        "our sweep": lambda: swept(moment, change, masked.mask),
        "exact": lambda: exact(moment, change, masked.mask),
    }
    rows = {}
    for name, solve in solvers.items():
        seconds, solved = timed(solve)
        error = moment.energy(change - solved) / moment.energy(change)
        rows[name] = (seconds, error)
    for name, (seconds, error) in rows.items():
        ours, theirs = rows["our sweep"], rows["SparseGPT"]
        sys.stdout.write(
            f"{name:12} {seconds:7.2f} {seconds / ours[0]:6.2f} {seconds / theirs[0]:7.2f}"
            f" {error:8.5f} {error / theirs[1]:7.2f}\n"
        )
    error = moment.energy(change - masked.change) / moment.energy(change)
    sys.stdout.write(
        f"{'mask alone':12} {'':23} {error:8.5f} {error / rows['SparseGPT'][1]:7.2f}\n"
    )
    sys.stdout.flush()


def problem(columns: int) -> tuple[Moment, Tensor]:
    """Moments of 4 tokens a column, and a change."""
    rng = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, columns + 1, dtype=torch.float32) ** -DECAY
    mixing = torch.randn(columns, columns, generator=rng) / columns**0.5
    inputs = (torch.randn(4 * columns, columns, generator=rng) * spectrum.sqrt()) @ mixing
    gram = inputs.T @ inputs / len(inputs)
    change = torch.randn(ROWS, columns, generator=rng) @ gram / gram.diagonal().mean()
    return Moment(torch.zeros(1, 1), gram, len(inputs)), 0.01 * change


def exact(moment: Moment, change: Tensor, mask: Tensor) -> Tensor:
    """What `tailor --solver exact` does once it has its mask."""
    damped, kept = moment.damped(DAMPING, change.shape), torch.where(mask, change, 0.0)
    return kept + correction(damped, change - kept, mask)[0]


def swept(moment: Moment, change: Tensor, mask: Tensor) -> Tensor:
    """What `tailor --solver sweep` does once it has its mask."""
    root = moment.damped(DAMPING, change.shape).inverse_root()
    return sweep(root, change, lambda here, _: mask[:, here])[0]


def sparse_gpt(moment: Moment, change: Tensor, mask: Tensor) -> Tensor:
    """`fasterprune` of SparseGPT (Frantar and Alistarh 2023), with a mask that is given."""
    assert moment.full is not None
    columns, hessian = change.shape[1], moment.full.clone()
    weights, losses = change.clone(), torch.zeros(len(change))
    diagonal = torch.arange(columns)
    hessian[diagonal, diagonal] += DAMPING * torch.mean(torch.diag(hessian))
    hessian = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    inverse = torch.linalg.cholesky(hessian, upper=True)
    for first in range(0, columns, 128):
        last = min(first + 128, columns)
        block, inner = weights[:, first:last].clone(), inverse[first:last, first:last]
        pruned, errors, lost = (torch.zeros_like(block) for _ in range(3))
        gone = ~mask[:, first:last]
        for i in range(last - first):
            column, pivot = block[:, i], inner[i, i]
            kept = column.clone()
            kept[gone[:, i]] = 0
            pruned[:, i] = kept
            lost[:, i] = (column - kept) ** 2 / pivot**2
            error = (column - kept) / pivot
            block[:, i:] -= error.unsqueeze(1).matmul(inner[i, i:].unsqueeze(0))
            errors[:, i] = error
        weights[:, first:last] = pruned
        losses += torch.sum(lost, 1) / 2
        weights[:, last:] -= errors.matmul(inverse[first:last, last:])
    return weights


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds and the result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


if __name__ == "__main__":
    main()
