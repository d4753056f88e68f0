"""Where tensors are, by their names; and the pictures of it."""

from pathlib import Path

import pytest

from mllmtool.fusion.places import Place, place_of
from mllmtool.fusion.plots import draw_depth, draw_heat_map


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.mlp.up_proj.weight", ("model.layers", 3, "mlp.up_proj")),
        ("layers.0.norm.bias", ("layers", 0, "norm")),
        (
            "qformer.encoder.layer.11.output.dense.weight",
            ("qformer.encoder.layer", 11, "output.dense"),
        ),
        ("visual.blocks.1.attn.qkv.bias", ("visual.blocks", 1, "attn.qkv")),
        ("model.layers.2.mlp.experts.17.w1.weight", ("model.layers", 2, "mlp.experts.*.w1")),
        ("visual.merger.mlp.0.weight", (None, None, "visual.merger.mlp.0")),
        (
            "language_model.model.embed_tokens.weight",
            (None, None, "language_model.model.embed_tokens"),
        ),
    ],
)
def test_the_place_of_a_tensor(name: str, place: tuple[str | None, int | None, str]) -> None:
    assert place_of(name) == Place(*place)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [None, 0.0, 1e-9, 0.5, 1e9])
def test_any_drift_is_drawn(tmp_path: Path, value: float | None) -> None:
    drift = {"relative_l2": value, "changed": 0.5}
    for places in ([Place("layers", 2, "mlp")], [Place(None, None, "head")]):
        draw_heat_map(dict.fromkeys(places, drift), tmp_path / "heat.png")
    draw_depth([{"part": "language", "stack": "layers", "block": 2, **drift}], tmp_path / "d.png")
    draw_depth([], tmp_path / "none.png")
