"""Recipes of mergekit, and what of them is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from commandline import mllmtool

from mllmtool.configs.fuse import FuseConfig
from mllmtool.errors import ConfigError

TIES = """
models:
  - model: base
  - model: a
    parameters: {weight: 0.5, density: 0.3}
  - model: b
    parameters: {density: 0.3}
merge_method: ties
base_model: base
parameters: {weight: 2, lambda: 0.7, normalize: true, int8_mask: true}
dtype: float32
out_dtype: bfloat16
"""


def parsed(text: str, **changed: Any) -> FuseConfig:
    return FuseConfig.parse({**yaml.safe_load(text), **changed})


def test_a_recipe_of_mergekit() -> None:
    config = parsed(TIES)
    assert (config.base, config.model, config.method) == ("base", ("a", "b"), "ties")
    assert (config.weight, config.density, config.scale) == ((0.5, 2.0), 0.3, 0.7)
    assert (config.compat, config.dtype) == ("mergekit", "bfloat16")


def test_a_linear_recipe_needs_no_base() -> None:
    text = "{models: [{model: a}, {model: b, parameters: {weight: 3}}], merge_method: linear}"
    config = parsed(text)
    assert (config.base, config.model, config.weight) == ("a", ("a", "b"), (1.0, 3.0))


def test_gradients_and_filters_of_weights() -> None:
    own = [{"filter": "mlp", "value": [0, 1]}, {"filter": "vision", "value": 2}]
    models = [{"model": "a", "parameters": {"weight": own}}, {"model": "b"}]
    config = parsed(TIES, models=models, parameters={"weight": [0.5, 1]})
    assert config.weight == (
        {"(mlp)": (0, 1), "(vision)": (2,), ".*": (0.5, 1)},
        {".*": (0.5, 1)},
    )


def test_model_stock_has_no_weights() -> None:
    text = "{models: [{model: a}, {model: b}], merge_method: model_stock, base_model: c}"
    config = parsed(text, parameters={"filter_wise": False})
    assert (config.method, config.compat, config.weight) == ("model-stock", "mergekit", ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"merge_method": "dare_ties"},
            "merge_method: 'dare_ties' is not served; linear, task_arithmetic, ties, model_stock"
            " are",
        ),
        ({"slices": []}, "slices: not served of mergekit's recipes"),
        ({"models": None}, "models: is no list of models; slices and modules are not served"),
        ({"base_model": None}, "base_model: is required by ties"),
        ({"parameters": {"densty": 1}}, "parameters.densty: not served of mergekit's recipes"),
        (
            {"merge_method": "model_stock", "parameters": {"filter_wise": True}},
            "parameters.filter_wise: only False is served of model_stock",
        ),
        ({"parameters": {"normalize": False}}, "parameters.normalize: only True is served of ties"),
        (
            {"parameters": {"lambda": [0, 1]}},
            "parameters.lambda: is no number; gradients and filters are not served",
        ),
        (
            {"models": [{"model": "a"}, {"model": "b", "parameters": {"density": 0.5}}]},
            "density: [0.5, 1.0] differ; one for all models is served",
        ),
        (
            {"models": [{"model": "a", "parameters": {"density": [0, 1]}}]},
            "models (0).parameters.density: is no number; gradients and filters are not served",
        ),
        (
            {"models": [{"model": "a", "parameters": {"weight": {"valeu": 1}}}]},
            "models (0).parameters.weight.valeu: not served of mergekit's recipes",
        ),
        (
            {"models": [{"model": "a"}, {"model": "a"}]},
            "models (1).model: 'a' is no path, or is given twice",
        ),
    ],
)
def test_what_is_not_served_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(TIES, **changed)
    assert str(caught.value) == message


def test_a_recipe_of_mergekit_is_run_and_flags_win(tmp_path: Path, llama: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    model = {"model": str(llama), "parameters": {"weight": 0.5}}
    values = {"models": [model], "merge_method": "task_arithmetic", "base_model": str(llama)}
    recipe.write_text(yaml.safe_dump({**values, "dtype": "float32"}))
    # a base among the models is skipped, so another must be named
    argv = ("fuse", "--recipe", recipe, "--model", llama, "--weight", 0.25, "--dry-run")
    done = mllmtool(*argv)
    assert (done.status, done.err) == (0, "")
    assert '"weights": [\n   0.25\n  ]' in done.out
    done = mllmtool(*argv, "--dtype", "float16")
    assert done.status == 2
    assert done.err.startswith("mllmtool: --dtype: float16 asked for, ")
    assert done.err.endswith(f" is F32 in {llama}, and is written so\n")
