"""The recipe of `finetune`: what it accepts, and what it says of what it does not."""

from pathlib import Path
from typing import Any

import pytest
from commandline import mllmtool

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.configs.selection import Choice, Full, Lora
from mllmtool.errors import ConfigError


def config(**values: Any) -> FinetuneConfig:
    return FinetuneConfig.parse({"model": "m", "samples": "s", "steps": 1, **values})


@pytest.mark.parametrize(
    ("flag", "nested", "expected"),
    [
        ("language=full", "full", "full"),
        ("language=norm", "norm", "norm"),
        ("language=lora", {"lora": None}, Choice(lora=Lora(rank=8, alpha=16))),
        ("language=lora:4", {"lora": {"rank": 4}}, Choice(lora=Lora(rank=4, alpha=8))),
        (
            "language=full:q_proj,v_proj",
            {"full": {"modules": ["q_proj", "v_proj"]}},
            Choice(full=Full(modules=("q_proj", "v_proj"))),
        ),
        ("language={full: {last: 2}}", {"full": {"last": 2}}, Choice(full=Full(last=2))),
        (
            "language={lora: {rank: 4, alpha: 1, dora: true}}",
            {"lora": {"rank": 4, "alpha": 1, "dora": True}},
            Choice(lora=Lora(rank=4, alpha=1, dora=True)),
        ),
    ],
)
def test_flag_and_recipe_say_the_same_and_a_report_says_it_again(
    flag: str, nested: Any, expected: Any
) -> None:
    from_flag, from_recipe = config(train=[flag]), config(train={"language": nested})
    assert from_flag == from_recipe
    assert from_flag.how("language") == expected
    assert FinetuneConfig.parse(from_flag.model_dump(mode="json")) == from_flag


def test_sections_group_keys() -> None:
    flat = config(lr=1e-3, batch=4, max_length=9, save_every=2)
    sections = {"optim": {"lr": 1e-3, "batch": 4}, "data": {"max_length": 9}}
    assert config(**sections, output={"save_every": 2}) == flat
    with pytest.raises(ConfigError) as caught:
        config(**sections, lr=1e-2)
    assert str(caught.value) == "optim: lr is given twice"


def test_rates_by_part() -> None:
    made = config(train=["language=full", "vision=norm"], lr=1e-3, lr_by_part=["vision=1e-5"])
    assert (made.rate("language"), made.rate("vision")) == (1e-3, 1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup_ratio": 0.1}, "warmup_ratio: unknown key; write warmup, a share of the steps"),
        ({"learning_rate": 0.1}, "learning_rate: unknown key; write lr"),
        ({"overwrite_output_dir": True}, "overwrite_output_dir: unknown key; write overwrite"),
        ({"lerning_rate": 0.1}, "lerning_rate: unknown key; write lr"),
        ({"train": {"language": {"lora": {"r": 8}}}}, "r: unknown key of train; write rank"),
        ({"stepz": 2}, "stepz: unknown key; did you mean steps?"),
        ({"optim": {"wdecay": 2}}, "wdecay: unknown key; did you mean weight_decay?"),
        ({"keep": {"l3": 2}}, "l3: unknown key of keep; did you mean l2?"),
        ({"lr": 0}, "--lr: 0: input should be greater than 0"),
        ({"lr": -1e-6}, "--lr: -1e-06: input should be greater than 0"),
        ({"train": ["language"]}, "--train: 'language' is not PART=VALUE"),
        (
            {"train": ["language=half"]},
            "--train: 'half' is none of frozen, full, bitfit, norm, full:MODULE, lora and"
            " lora:RANK",
        ),
        ({"train": ["language=lora:x"]}, "--train: 'lora:x' is not lora:RANK"),
        ({"train": ["language=full:"]}, "--train: 'full:' is not full:MODULE,MODULE"),
        (
            {"train": {"language": {"loraa": {"rank": 8}}}},
            "loraa: unknown key of train; did you mean lora?",
        ),
        (
            {"train": {"language": {"lora": {"dropuot": 0.1}}}},
            "dropuot: unknown key of train; did you mean dropout?",
        ),
        ({"keep": {"qqq": 2}}, "qqq: unknown key of keep"),
        ({"train": {"language": {}}}, "--train (language): is neither full nor lora, or both"),
        (
            {"train": ["language={full"]},
            "--train: '{full' is not YAML: line 1, column 6: expected ',' or '}', but got"
            " '<stream end>'",
        ),
        (
            {"train": {"language": {"full": {}, "lora": {}}}},
            "--train (language): is neither full nor lora, or both",
        ),
        (
            {"train": ["language=frozen"]},
            "--train: every part is frozen; name one that is full or lora",
        ),
        (
            {"lr_by_part": ["vision=1e-3"]},
            "--lr-by-part: vision is frozen; train it, or leave its rate out",
        ),
        ({"keep": {}}, "--keep: holds nothing: give l2 or kl a weight"),
        (
            {"keep": {"l2": 1, "samples": "x"}},
            "--keep: samples are for kl, which has no weight",
        ),
        (
            {"train": ["language=full", "language=lora"]},
            "--train: language is given twice",
        ),
        (
            {"train": {"language": {"lora": {"rank": True}}}},
            "--train (language.lora.rank): True: input should be a valid integer",
        ),
        ({"keep": "l2"}, "--keep: 'l2': is not a mapping; write {KEY: VALUE, ...}"),
        (
            {"keep": {"l2": 1}, "train": ["language=lora"]},
            "--keep: l2 holds weights, and adapters are low-rank changes of them; use kl",
        ),
        (
            {"precision": "bf16"},
            "--precision bf16: at a rate of 1e-06 its rounding undoes the steps (1.3 % of weights"
            " moved in 200 steps at 1e-6, against 84 % in float32); use bf16-mixed, a rate of at"
            " least 1e-5, or --force-bf16",
        ),
        (
            {"precision": "bf16", "lr": 1e-4, "lr_by_part": ["language=9e-6"]},
            "--precision bf16: at a rate of 9e-06 its rounding undoes the steps (1.3 % of weights"
            " moved in 200 steps at 1e-6, against 84 % in float32); use bf16-mixed, a rate of at"
            " least 1e-5, or --force-bf16",
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_users_words(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert str(caught.value) == message


def test_pure_bf16_is_allowed_at_a_rate_that_it_can_show_or_by_force() -> None:
    assert config(precision="bf16", lr=1e-5).precision == "bf16"
    assert config(precision="bf16", lr=1e-6, force_bf16=True).precision == "bf16"


def test_ceiling_of_forgetting() -> None:
    made = config(probe="{suite: s.yaml, stop_if: forgetting > 0.02}")
    assert made.probe is not None
    assert made.probe.ceiling == 0.02


def test_flags_win_over_a_recipe_with_sections(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("optim: {lr: 1.0e-4, epochs: 1}\ndata: {model: none, samples: none}\n")
    done = mllmtool("finetune", "--recipe", recipe, "--lr", 1e-5, "--steps", 2, "--out", "x")
    assert done.err == "mllmtool: none: no such checkpoint directory\n"  # all else was accepted
    recipe.write_text("lr: 1.0e-4\noptim: {lr: 1.0e-5}\n")
    done = mllmtool("finetune", "--recipe", recipe, "--out", "x")
    assert (done.status, done.err) == (2, "mllmtool: optim: lr is given twice\n")
