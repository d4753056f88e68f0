"""Model Stock: how far to go from the base to the mean is told by the angle between the models."""

import numpy as np

from mllmtool.checkpoints.difference import dot
from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.method import Fused, Prepared, moved, weighted_sum


def model_stock(inputs: Inputs) -> Prepared:
    r"""$(1-t)\,\theta_0 + t\,\bar\theta$, $t = N\cos\phi / (1 + (N-1)\cos\phi)$, tensor by tensor.

    Jang et al. 2024, equation 4; $\cos\phi$ is the mean over the pairs of task vectors. The paper's
    angles are acute: where they are not, t is 0 and the tensor stays as in the base.
    """
    ratios = dict(
        zip(inputs.names, inputs.over(lambda name: _ratio(inputs, name), "angles"), strict=True)
    )

    def fuse(piece: Piece) -> Fused:
        count = len(piece.tuned)
        share = ratios[piece.tensor] / count
        return Fused(moved(piece.base, weighted_sum(piece.task_vectors, (share,) * count)))

    return Prepared(fuse, {"ratios": {name: round(t, 6) for name, t in sorted(ratios.items())}})


def _ratio(inputs: Inputs, name: str) -> float:
    count = len(inputs.models)
    gram: Array = np.zeros((count, count))
    for piece in inputs.pieces(name):
        for s, first in enumerate(piece.task_vectors):
            for t, second in enumerate(piece.task_vectors[: s + 1]):
                gram[s, t] += dot(first, second)
    norms = np.sqrt(np.diag(gram))
    products = np.outer(norms, norms)
    cosines = np.divide(gram, products, out=np.zeros_like(gram), where=products > 0)
    cosine = min(1.0, float(cosines[np.tril_indices(count, -1)].mean()))
    return count * cosine / (1 + (count - 1) * cosine) if cosine > 0 else 0.0
