"""What vision and projector make of pictures, kept from checkpoint to checkpoint.

Only what was made for the same rows is taken again, so that a run with remembered features gives
the same bits as one without.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from mllmtool.models.encoding import Encoder, Row
from mllmtool.models.memo import Memo

GIB = 1 << 30


@dataclass(frozen=True)
class _Seen:
    """A model's output for the images of rows, and what else than pixels came with them."""

    kind: type
    features: list[Tensor]
    listed: bool
    shapes: dict[str, Tensor]


class Features:
    """Remembers, in the host's memory, for one vision tower and projector."""

    def __init__(self, num_bytes: int = 4 * GIB) -> None:
        self._memo: Memo[_Seen] = Memo(num_bytes, lambda seen: sum(t.nbytes for t in seen.features))

    def seen(
        self, model: Any, encoder: Encoder, rows: Sequence[Row], batch: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """What a call of the model takes in place of the pixels of rows, whose text is `batch`."""
        key = tuple((row.images, _ids(row.question)) for row in rows)
        seen = self._memo.get(key, partial(_see, model, encoder, rows, batch))
        device = batch["input_ids"].device
        features = [tensor.to(device) for tensor in seen.features]
        pooled = features if seen.listed else features[0]
        return {
            **{name: tensor.to(device) for name, tensor in seen.shapes.items()},
            "pixel_values": None,
            "mm_encoder_outputs": {"image": seen.kind(pooler_output=pooled)},
        }


def _see(model: Any, encoder: Encoder, rows: Sequence[Row], batch: Mapping[str, Tensor]) -> _Seen:
    pixels = encoder.pixels(rows)
    given = {name: tensor.to(batch["input_ids"].device) for name, tensor in pixels.items()} | {
        **batch
    }
    taken = inspect.signature(model.get_image_features).parameters
    made = model.get_image_features(
        **{name: given[name] for name in taken if name in given}, return_dict=True
    )
    listed = not isinstance(made.pooler_output, Tensor)
    features = list(made.pooler_output) if listed else [made.pooler_output]
    return _Seen(
        kind=type(made),
        features=[tensor.cpu() for tensor in features],
        listed=listed,
        shapes={name: pixels[name] for name in pixels if not name.startswith("pixel_")},
    )


def _ids(question: Tensor | None) -> tuple[int, ...]:
    return () if question is None else tuple(question.tolist())
