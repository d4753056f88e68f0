"""`fuse`: whole checkpoints in and out, exact where it promises to be, clean when it fails."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from commandline import mllmtool
from safetensors.torch import load_file
from weights import retuned, same_bits, save_checkpoint

from mllmtool.checkpoints import Checkpoint, PatchBuilder
from mllmtool.errors import OutputError, some
from mllmtool.fusion import METHODS
from mllmtool.fusion.needs import check_disk

WEIGHTS = "model.safetensors"
BLOCKS = "language_model.model.layers"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, llava: Path) -> list[Path]:
    """Two fine-tuned LLaVAs."""
    folder = tmp_path_factory.mktemp("tuned")
    return [retuned(folder / name, llava, seed) for seed, name in enumerate("ab")]


def fuse(base: Path, models: list[Path], method: str, out: Path, *flags: object) -> dict[str, Any]:
    """Run the command, which must succeed, and return its report."""
    repeated = [argument for model in models for argument in ("--model", model)]
    done = mllmtool(
        *("fuse", "--base", base, *repeated, "--method", method, "--out", out, "--quiet", *flags)
    )
    assert (done.status, done.out, done.err) == (0, f"{out}\n", "")
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_a_fused_llava_loads_and_equals_a_merge_in_memory(
    tmp_path: Path, llava: Path, tuned: list[Path]
) -> None:
    out = tmp_path / "fused"
    fuse(llava, tuned, "task-arithmetic", out, "--scale", 0.5)
    load = transformers.AutoModelForImageTextToText.from_pretrained
    model, info = load(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    merged = load(llava)
    states = [load(path).state_dict() for path in tuned]
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            change = sum(state[name].double() - parameter.double() for state in states)
            parameter.copy_(parameter.double() + 0.5 * change)
    for name, expected in merged.state_dict().items():
        assert same_bits(model.state_dict()[name], expected), name
    ours, theirs = (transformers.AutoProcessor.from_pretrained(path) for path in (out, llava))
    assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    names = {path.name for path in llava.iterdir()} | {"report.json", "drift.png"}
    assert {path.name for path in out.iterdir()} == names


def test_other_parts_stay_the_bytes_of_the_base(
    tmp_path: Path, llava: Path, tuned: list[Path]
) -> None:
    out = tmp_path / "fused"
    report = fuse(llava, tuned[:1], "wise-ft", out, "--parts", "language", "--scale", 1)
    base, model, fused = (load_file(path / WEIGHTS) for path in (llava, tuned[0], out))
    language = {name for name in base if name.startswith("language_model.")}
    assert 0 < len(language) < len(base)
    for name in base:
        assert same_bits(fused[name], (model if name in language else base)[name]), name
    unchanged = report["results"]["unchanged"]
    assert unchanged["tensors"]["language"] == 0
    assert sum(unchanged["tensors"].values()) == len(base) - len(language)
    assert unchanged["bytes"] == sum(base[name].nbytes for name in set(base) - language)
    others = sorted(set(base) - language)
    digest = Checkpoint.open(llava).digest(others)
    assert unchanged["sha256_base"] == unchanged["sha256_fused"] == digest
    assert set(report["results"]["parts"]) == {"language"}
    assert set(report["results"]["tensors"]) == language


def test_names_are_chosen_by_expressions(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    out = tmp_path / "fused"
    flags = ("--only", r"layers\.\d+\.mlp", "--except", r"layers\.1\.", "--only", "lm_head")
    report = fuse(llava, tuned[:1], "wise-ft", out, "--parts", "language", "--scale", 1, *flags)
    base, model, fused = (load_file(path / WEIGHTS) for path in (llava, tuned[0], out))
    chosen = {n for n in base if "language_model.model.layers.0.mlp" in n or "lm_head" in n}
    assert len(chosen) == 4
    assert set(report["results"]["tensors"]) == chosen
    for name in base:
        assert same_bits(fused[name], (model if name in chosen else base)[name]), name


def test_the_scale_follows_part_and_depth(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    out = tmp_path / "fused"
    flags = ("--scale", 0.5, "--scale-by", "vision=2", "--scale-by", "language=0,1")
    fuse(llava, tuned[:1], "task-arithmetic", out, *flags)
    base, model, fused = (load_file(path / WEIGHTS) for path in (llava, tuned[0], out))
    for name, before in base.items():
        if "embed_tokens" in name or "language_model.model.layers.0." in name:
            assert same_bits(fused[name], before), name
            continue
        share = 1.0 if name.startswith("vision_tower") else 0.5  # the last block, head, projector
        expected = before + share * (model[name] - before)
        assert torch.allclose(fused[name], expected, rtol=1e-5, atol=1e-6), name


def test_weights_follow_part_depth_and_name(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    by_name = "{vision: 0.5, 'mlp': 2, language: [0, 1]}"
    flags = ("--scale", 1, "--weight", by_name, "--weight", "0,0.5")
    report = fuse(llava, tuned, "task-arithmetic", tmp_path / "out", *flags)
    base, *models, fused = (load_file(p / WEIGHTS) for p in (llava, *tuned, tmp_path / "out"))
    for name, before in base.items():
        last = ("layers.1.", "lm_head", "model.norm", "vision_tower.post_layernorm")
        late = any(each in name for each in last)
        weights = (1.0 if late else 0.0, 0.5 if late else 0.0)
        if "vision" in name:
            weights = (0.5, weights[1])
        elif "projector" in name:
            weights = (1.0, 0.0)  # no key is for it; no blocks, so no depth
        elif "mlp" in name:
            weights = (2.0, weights[1])
        expected = before.double()
        for weight, model in zip(weights, models, strict=True):
            expected = expected + weight * (model[name].double() - before)
        assert torch.allclose(fused[name].double(), expected, atol=1e-6), name
    assert report["results"]["method"]["weights"] == report["config"]["weight"]
    assert report["config"]["weight"] == [
        {"vision": [0.5], "mlp": [2], "language": [0, 1]},
        {".*": [0, 0.5]},
    ]


def test_memory_is_kept_within_bounds(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    argv = ("--base", llava, "--model", tuned[0], "--method", "ties", "--workers", 64)
    done = mllmtool("fuse", *argv, "--max-ram", "70MB", "--dry-run")
    plan = json.loads(done.out)
    assert 1 <= plan["workers"] < 64
    assert plan["memory"] <= 70_000_000
    assert failure(tmp_path, 2, *argv, "--max-ram", "1 MiB").startswith(
        "--max-ram: 1,048,576 bytes are less than the "
    )


def test_a_disk_that_is_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"1,000,000,000,000,000,000 bytes are to be written, "):
        check_disk(tmp_path, 10**18)


def test_extra_tensors_are_left_out_if_allowed(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    more = {**LANGUAGE, "model.layers.0.w": torch.ones(2), "model.norm.weight": torch.zeros(2)}
    model = save_checkpoint(tmp_path / "model", more)
    argv = ("--base", base, "--model", model, "--method", "linear")
    assert failure(tmp_path, 3, *argv) == (
        "DIR/model: has model.layers.0.w besides, against DIR/base; both must come from the same"
        " base, or --allow-extra leaves the rest out"
    )
    fuse(base, [model], "linear", tmp_path / "out", "--allow-extra")
    fused = load_file(tmp_path / "out" / WEIGHTS)
    assert fused.keys() == LANGUAGE.keys()
    assert fused["model.norm.weight"].tolist() == [0, 0]


def test_the_report(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    report = fuse(llava, tuned, "ties", tmp_path / "fused", "--seed", 3)
    assert report["config"]["density"] is None
    found = report["results"]["method"]
    assert (found["name"], found["density"], found["scale"]) == ("ties", 0.2, 1.0)
    assert found["weights"] is None
    assert len(found["thresholds"]) == 2
    assert [(each["role"], each["path"]) for each in report["inputs"]] == [
        *(("base", str(llava)), ("model", str(tuned[0])), ("model", str(tuned[1])))
    ]
    assert report["inputs"][1]["sha256"] == Checkpoint.open(tuned[0]).fingerprint()
    base, fused = load_file(llava / WEIGHTS), load_file(tmp_path / "fused" / WEIGHTS)
    models = [load_file(path / WEIGHTS) for path in tuned]
    for name, drift in report["results"]["tensors"].items():
        start = base[name].double().flatten()
        first, second = (model[name].double().flatten() - start for model in models)
        change = fused[name].double().flatten() - start
        expected = {
            "relative_l2": change.norm() / start.norm() if start.any() else None,
            "max": change.abs().max(),
            "changed": (change != 0).double().mean(),
            "cosine": torch.dot(first, second) / (first.norm() * second.norm()),
            "sign_conflict": (first.sign() * second.sign() < 0).double().mean(),
        }
        for key, value in expected.items():
            close = None if value is None else pytest.approx(float(value), rel=1e-4, abs=1e-6)
            assert drift[key] == close, (name, key)
    row = report["results"]["blocks"][0]
    assert (row["part"], row["stack"], row["block"]) == ("language", BLOCKS, 0)
    inside = [name for name in base if name.startswith(f"{BLOCKS}.0.")]
    squares = [
        sum(float(x.double().norm()) ** 2 for x in xs)
        for xs in (
            [fused[name].double() - base[name].double() for name in inside],
            [base[name] for name in inside],
        )
    ]
    assert row["relative_l2"] == pytest.approx((squares[0] / squares[1]) ** 0.5, rel=1e-4)
    assert row["entries"] == sum(base[name].numel() for name in inside)
    entries = [part["entries"] for part in report["results"]["parts"].values()]
    kept = [part["kept"] for part in report["results"]["parts"].values()]
    share = np.average([k[0] for k in kept], weights=entries)
    assert share == pytest.approx(0.2, abs=1e-3)


def test_the_same_recipe_gives_the_same_bytes(
    tmp_path: Path, llava: Path, tuned: list[Path]
) -> None:
    one = fuse(llava, tuned, "dare", tmp_path / "one", "--seed", 7)
    done = mllmtool(
        *("fuse", "--recipe", tmp_path / "one/report.json", "--out", tmp_path / "two", "--quiet")
    )
    assert done.status == 0
    two = json.loads((tmp_path / "two/report.json").read_text())
    del one["run"], two["run"]
    assert one == two
    assert one["seed"] == 7
    other = fuse(llava, tuned, "dare", tmp_path / "three", "--seed", 8)
    assert other["outputs"] != one["outputs"]


def test_sharded_in_and_sharded_out(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    sharded = save_checkpoint(tmp_path / "base", load_file(llava / WEIGHTS), 3)
    fuse(sharded, tuned, "ties", tmp_path / "sharded")
    fuse(llava, tuned, "ties", tmp_path / "whole")
    index = "model.safetensors.index.json"
    found = json.loads((tmp_path / "sharded" / index).read_text())
    assert found == json.loads((sharded / index).read_text())
    whole = load_file(tmp_path / "whole" / WEIGHTS)
    for name, file in found["weight_map"].items():
        assert same_bits(load_file(tmp_path / "sharded" / file)[name], whole[name])


@pytest.mark.parametrize("method", ["ties", "dare", "breadcrumbs"])
def test_a_sweep_writes_the_checkpoints_of_single_runs(
    tmp_path: Path, llava: Path, tuned: list[Path], method: str
) -> None:
    swept = ("--sweep", "scale=0.4:0.8:2", "density=0.2,0.5", "--scale-by", "vision=0.5")
    out = tmp_path / "swept"
    report = fuse(llava, tuned, method, out, *swept, "--workers", 2)
    names = [f"scale-{s}_density-{d}" for s in (0.4, 0.8) for d in (0.2, 0.5)]
    points = report["results"]["points"]
    assert [point["checkpoint"] for point in points] == names
    assert {path.name for path in out.iterdir()} == {*names, "report.json"}
    hashes = {made["path"]: made["sha256"] for made in report["outputs"]}
    for name, scale, density in ((names[0], 0.4, 0.2), (names[3], 0.8, 0.5)):
        one = tmp_path / name
        flags = ("--scale", scale, "--density", density, "--scale-by", "vision=0.5")
        single = fuse(llava, tuned, method, one, *flags)
        for path in (one).iterdir():
            if path.name != "report.json":
                assert (out / name / path.name).read_bytes() == path.read_bytes(), path.name
        assert {"checkpoint": name, **single["results"]} == points[names.index(name)]
        found = sha256((one / WEIGHTS).read_bytes()).hexdigest()
        assert hashes[f"{name}/{WEIGHTS}"] == found


def test_a_dry_run_of_a_sweep_tells_its_points(llava: Path, tuned: list[Path]) -> None:
    argv = ("fuse", "--base", llava, "--model", tuned[0], "--method", "wise-ft", "--dry-run")
    one, ten = (
        json.loads(mllmtool(*argv, *flags).out) for flags in ((), ("--sweep", "scale=0.1:1.0:10"))
    )
    assert ten["points"] == [f"scale-{x / 10:g}" for x in range(1, 11)]
    assert one["points"] == []
    assert ten["bytes_to_write"] == 10 * one["bytes_to_write"]


def test_names_are_lined_up_with_the_model_class(
    tmp_path: Path, llava: Path, tuned: list[Path]
) -> None:
    argv = ("--method", "wise-ft", "--check-class", "--dry-run")
    assert mllmtool("fuse", "--base", llava, "--model", tuned[0], *argv).status == 0
    more = {f"{BLOCKS}.9.mlp.up_proj.weight": torch.ones(2)}
    paths = [retuned(tmp_path / name, llava, 0, **more) for name in "ab"]
    assert failure(tmp_path, 3, "--base", paths[0], "--model", paths[1], *argv) == (
        f"DIR/a: has besides {BLOCKS}.9.mlp.up_proj.weight, against its config.json"
    )


def test_shards_of_a_size(tmp_path: Path) -> None:
    # 40 + 16 bytes are more than 50; 16 + 8 are not; 80 have a file of their own
    sizes = {"layers.0.a": 10, "layers.0.b": 4, "layers.0.c": 2, "layers.0.d": 20, "norm.e": 1}
    base = {name: torch.arange(float(size)) for name, size in sizes.items()}
    paths = [save_checkpoint(tmp_path / name, base, n) for name, n in (("base", 2), ("m", 1))]
    report = fuse(paths[0], paths[1:], "linear", tmp_path / "out", "--shard-size", "50")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    numbers = {"layers.0.a": 1, "layers.0.b": 2, "layers.0.c": 2, "layers.0.d": 3, "norm.e": 4}
    assert index == {
        "metadata": {"total_size": 148},
        "weight_map": {n: f"model-{i:05d}-of-00004.safetensors" for n, i in numbers.items()},
    }
    for name, file in index["weight_map"].items():
        assert same_bits(load_file(tmp_path / "out" / file)[name], base[name])
    hashes = {made["path"]: made["sha256"] for made in report["outputs"]}
    for file in set(index["weight_map"].values()):
        assert hashes[file] == sha256((tmp_path / "out" / file).read_bytes()).hexdigest()
    fuse(paths[0], paths[1:], "linear", tmp_path / "whole", "--shard-size", "1KiB")
    names = {path.name for path in (tmp_path / "whole").glob("model*")}
    assert names == {WEIGHTS}


def test_the_output_has_the_dtypes_of_the_base(tmp_path: Path) -> None:
    base = {"lm_head.weight": torch.ones(4, dtype=torch.bfloat16), "norm.weight": torch.ones(3)}
    model = {
        "lm_head.weight": torch.tensor([1.0, 2.0, 1 + 2**-9, 3.0]),
        "norm.weight": 2 * base["norm.weight"].half(),
    }
    paths = [save_checkpoint(tmp_path / str(i), t) for i, t in enumerate((base, model))]
    fuse(paths[0], paths[1:], "linear", tmp_path / "out")
    fused = load_file(tmp_path / "out" / WEIGHTS)
    assert same_bits(fused["lm_head.weight"], torch.tensor([1, 2, 1, 3], dtype=torch.bfloat16))
    assert same_bits(fused["norm.weight"], torch.full((3,), 2.0))


def test_stochastic_rounding_is_seeded_and_keeps_the_mean(tmp_path: Path) -> None:
    # 1 + 0.3 * 2^-7 has no bfloat16 between 1 and 1 + 2^-7: to the nearest all of it is lost
    name, size = "lm_head.weight", 1 << 18
    base = {name: torch.ones(size, dtype=torch.bfloat16), "model.norm.weight": torch.ones(3).half()}
    model = {**base, name: base[name] + 2**-7}
    paths = [save_checkpoint(tmp_path / str(i), t) for i, t in enumerate((base, model))]
    flags = ("--scale", 0.3, "--rounding", "stochastic", "--seed")
    for out, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        more = (*flags, seed, "--workers", workers)
        fuse(paths[0], paths[1:], "wise-ft", tmp_path / out, *more)
    one, again, other = (load_file(tmp_path / out / WEIGHTS) for out in "abc")
    assert all(same_bits(one[each], again[each]) for each in base)
    assert not same_bits(one[name], other[name])
    assert same_bits(one["model.norm.weight"], base["model.norm.weight"])
    share = float(((one[name].float() - 1) * 2**7).double().mean())
    assert share == pytest.approx(0.3, abs=4 * (0.21 / size) ** 0.5)


def test_hashes_are_those_of_the_files(tmp_path: Path, llava: Path, tuned: list[Path]) -> None:
    sharded = save_checkpoint(tmp_path / "base", load_file(llava / WEIGHTS), 3)
    for workers in (1, 3):
        out = tmp_path / str(workers)
        report = fuse(sharded, tuned, "ties", out, "--parts", "language", "--workers", workers)
        for made in report["outputs"]:
            assert made["sha256"] == sha256((out / made["path"]).read_bytes()).hexdigest()


def test_equal_integers_are_copied(tmp_path: Path) -> None:
    base = {"lm_head.weight": torch.ones(4), "model.layers.0.ids": torch.arange(9)}
    model = {**base, "lm_head.weight": torch.zeros(4)}
    paths = [save_checkpoint(tmp_path / str(i), t) for i, t in enumerate((base, model))]
    report = fuse(paths[0], paths[1:], "linear", tmp_path / "out")
    fused = load_file(tmp_path / "out" / WEIGHTS)
    assert fused["model.layers.0.ids"].tolist() == list(range(9))
    assert fused["lm_head.weight"].tolist() == [0.0] * 4
    assert report["results"]["unchanged"]["tensors"]["language"] == 1


@pytest.fixture
def patches(tmp_path: Path, llava: Path, tuned: list[Path]) -> list[Path]:
    """A tenth of each tuned model's entries as a patch of the base."""
    base = Checkpoint.open(llava)
    rng, paths = torch.Generator().manual_seed(0), []
    for path in tuned:
        builder, model = PatchBuilder(base), Checkpoint.open(path)
        for name in base.names:
            if base.info(name).floating:
                mask = torch.rand(base.info(name).shape, generator=rng) < 0.1
                builder.add(name, mask, model[name])
        paths.append(tmp_path / f"{path.name}.safetensors")
        builder.write(paths[-1], base.fingerprint(), {})
    return paths


def test_patches_are_fused_like_the_checkpoints_that_they_make(
    tmp_path: Path, llava: Path, patches: list[Path]
) -> None:
    applied = []
    for path in patches:
        applied.append(tmp_path / f"{path.stem}-applied")
        mllmtool("patch", "apply", path, "--base", llava, "--out", applied[-1], "--quiet")
    from_patches = fuse(llava, patches, "tailor", tmp_path / "one")
    from_checkpoints = fuse(llava, applied, "tailor", tmp_path / "two")
    mixed = fuse(llava, [patches[0], applied[1]], "tailor", tmp_path / "three")
    assert [each["role"] for each in from_patches["inputs"]] == ["base", "patch", "patch"]
    assert from_patches["results"] == from_checkpoints["results"] == mixed["results"]
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    assert all(same_bits(one[name], two[name]) for name in one)
    assert from_patches["warnings"] == []


def test_dense_models_are_warned_of_when_patches_are_expected(
    tmp_path: Path, llava: Path, tuned: list[Path]
) -> None:
    report = fuse(llava, tuned[:1], "tailor", tmp_path / "out")
    assert report["warnings"] == [
        f"{tuned[0]}: differs from the base in 100% of its entries; method tailor is for tailored"
        " checkpoints, which differ in few"
    ]


def test_a_dry_run_prints_the_plan_and_makes_nothing(
    tmp_path: Path, llava: Path, tuned: list[Path]
) -> None:
    done = mllmtool(
        *("fuse", "--base", llava, "--model", tuned[0], "--method", "ties", "--parts", "language"),
        *("--out", tmp_path / "out", "--dry-run"),
    )
    plan = json.loads(done.out)
    base = load_file(llava / WEIGHTS)
    assert (done.status, done.err) == (0, "")
    assert plan["method"]["density"] == 0.2
    assert plan["files"] == [WEIGHTS]
    assert plan["bytes_to_write"] == sum(tensor.nbytes for tensor in base.values())
    assert plan["fused"]["bytes"] + plan["unchanged"]["bytes"] == plan["bytes_to_write"]
    assert plan["fused"]["tensors"]["vision"] == plan["unchanged"]["tensors"]["language"] == 0
    assert list(tmp_path.iterdir()) == []


# Failures: status, the whole message, nothing left behind.

LANGUAGE = {"lm_head.weight": torch.ones(4), "model.norm.weight": torch.ones(2)}
FLAGS: dict[str, tuple[int, list[str], str]] = {
    "density for linear": (
        1,
        ["--method", "linear", "--density", "0.5"],
        "--density: linear does not read it; of use to READERS",
    ),
    "weight for ties": (
        1,
        ["--method", "ties", "--weight", "0.5"],
        "--weight: ties does not read it; of use to READERS",
    ),
    "scale for slerp": (
        2,
        ["--method", "slerp", "--scale", "0.5"],
        "--scale: slerp does not read it; of use to READERS",
    ),
    "two models for wise-ft": (
        2,
        ["--method", "wise-ft"],
        "--model: wise-ft takes exactly 1, 2 given",
    ),
    "three models for slerp": (
        3,
        ["--method", "slerp"],
        "--model: slerp takes exactly 2, 3 given",
    ),
    "shares that sum to 0": (
        2,
        ["--method", "linear", "--weight", "0", "--weight", "0"],
        "--weight: linear takes shares, none below 0 and not all 0",
    ),
    "a share below 0": (
        2,
        ["--method", "slerp", "--weight", "2", "--weight", "-1"],
        "--weight: slerp takes shares, none below 0 and not all 0",
    ),
    "shares below 0 of some tensors": (
        2,
        ["--method", "linear", "--weight", "{norm: -1}", "--weight", "1"],
        "--weight: linear takes shares, none below 0 and not all 0 at model.norm.weight",
    ),
    "a weight of nothing": (
        1,
        ["--method", "linear", "--weight", "{lnguage: 1}"],
        "--weight: 'lnguage' is no part that is fused (language) and matches no tensor; they are"
        " named like lm_head.weight",
    ),
    "a weight that is no number": (
        1,
        ["--method", "linear", "--weight", "{language: [1, high]}"],
        "--weight (0): '{language: [1, high]}': 'high' is no number; give X, X,Y or {PART: [X, Y]}",
    ),
    "a weight without numbers": (
        1,
        ["--method", "linear", "--weight", "{language: []}"],
        "--weight (0): '{language: []}': holds no number",
    ),
    "a weight by no expression": (
        1,
        ["--method", "linear", "--weight", "{'(': 1}"],
        "--weight (0): \"{'(': 1}\": '(' is no part and no regular expression: missing ),"
        " unterminated subpattern at position 0",
    ),
    "one weight for two models": (
        2,
        ["--method", "linear", "--weight", "1"],
        "--weight: 1 given for 2 --model",
    ),
    "scale above 1 for wise-ft": (
        1,
        ["--method", "wise-ft", "--scale", "1.5"],
        "--scale: 1.5 is outside 0 to 1 for wise-ft",
    ),
    "an epsilon too large": (
        1,
        ["--method", "della", "--density", "0.1", "--epsilon", "0.5"],
        "--epsilon: 0.5 is more than density 0.1 leaves room for della",
    ),
    "density 0": (
        1,
        ["--method", "ties", "--density", "0"],
        "--density: 0.0: input should be greater than 0",
    ),
    "density 5": (
        1,
        ["--method", "ties", "--density", "5"],
        "--density: 5.0: input should be less than or equal to 1",
    ),
    "a part that is not there": (
        1,
        ["--method", "ties", "--parts", "vision"],
        "--parts: BASE has no vision, only language",
    ),
    "a scale by part for linear": (
        1,
        ["--method", "linear", "--scale-by", "vision=0.5"],
        "--scale-by: linear does not read --scale",
    ),
    "a scale by part that is too large": (
        1,
        ["--method", "wise-ft", "--scale-by", "language=3"],
        "--scale: 1.5 is outside 0 to 1 for wise-ft, by --scale-by",
    ),
    "no number": (
        1,
        ["--method", "ties", "--scale-by", "language=x"],
        "--scale-by (language.0): 'x': input should be a valid number, unable to parse string as a"
        " number",
    ),
    "chance in another tool's rounding": (
        1,
        ["--method", "linear", "--compat", "mergekit", "--rounding", "stochastic"],
        "--rounding: mergekit rounds to the nearest",
    ),
    "no size": (
        1,
        ["--method", "ties", "--max-ram", "much"],
        "--max-ram: 'much': is no size such as 300MB or 2GiB",
    ),
    "a size of nothing": (
        1,
        ["--method", "ties", "--shard-size", "0GB"],
        "--shard-size: '0GB': is no size such as 300MB or 2GiB",
    ),
    "a sweep out of range": (
        1,
        ["--method", "wise-ft", "--sweep", "scale=0.5:2:4"],
        "--scale: 1.5 is outside 0 to 1 for wise-ft",
    ),
    "a sweep of what is not read": (
        1,
        ["--method", "slerp", "--sweep", "votes=1,2"],
        "--votes: slerp does not read it; of use to consensus",
    ),
    "a sweep of one value": (
        1,
        ["--method", "wise-ft", "--sweep", "scale=0.5:1:1"],
        "--sweep: '0.5:1:1': a range has two values or more",
    ),
    "no range": (
        1,
        ["--method", "wise-ft", "--sweep", "scale=0.5:1"],
        "--sweep: '0.5:1' is not FIRST:LAST:COUNT",
    ),
    "an expression that matches nothing": (
        1,
        ["--method", "ties", "--only", "mpl"],
        "--only: 'mpl' matches no tensor; they are named like lm_head.weight",
    ),
    "expressions that leave nothing": (
        1,
        ["--method", "ties", "--except", "weight"],
        "--only, --except: leave no tensor of BASE",
    ),
    "no expression": (
        1,
        ["--method", "ties", "--except", "("],
        "--except: '(' is no regular expression: missing ), unterminated subpattern at position 0",
    ),
    "an unknown part": (
        1,
        ["--method", "ties", "--parts", "audio"],
        "--parts (0): 'audio': input should be 'vision', 'projector' or 'language'",
    ),
}


def failure(tmp_path: Path, status: int, *argv: object) -> str:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = mllmtool("fuse", *argv, "--out", tmp_path / "out", "--quiet")
    assert (done.status, done.out) == (status, "")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert done.err.startswith("mllmtool: ")
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1
    return done.err[10:-1].replace(str(tmp_path), "DIR")


@pytest.mark.parametrize("case", FLAGS)
def test_bad_flags(tmp_path: Path, case: str) -> None:
    num_models, flags, message = FLAGS[case]
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    models = [argument for _ in range(num_models) for argument in ("--model", base)]
    found = failure(tmp_path, 2, "--base", base, *models, *flags)
    readers = [name for name, row in METHODS.items() if flags[2:] and flags[2][2:] in row.reads]
    assert found.replace("DIR/base", "BASE") == message.replace("READERS", some(readers))


BAD_MODELS: dict[str, tuple[dict[str, torch.Tensor], int, str]] = {
    "another shape": (
        {**LANGUAGE, "lm_head.weight": torch.ones(5)},
        3,
        "lm_head.weight: shape (5,) in DIR/model, (4,) in DIR/base",
    ),
    "another vocabulary": (
        {**LANGUAGE, "model.embed_tokens.weight": torch.ones(6, 2)},
        3,
        "model.embed_tokens.weight: shape (6, 2) in DIR/model, (4, 2) in DIR/base",
    ),
    "a tensor less": (
        {"lm_head.weight": torch.ones(4)},
        3,
        "DIR/model: lacks model.norm.weight, against DIR/base; both must come from the same base",
    ),
    "NaN": (
        {**LANGUAGE, "lm_head.weight": torch.tensor([0, 1, float("nan"), 2])},
        5,
        "lm_head.weight: holds NaN or Inf in DIR/model",
    ),
    "overflow": (
        {**LANGUAGE, "lm_head.weight": torch.full((4,), 3e38)},
        5,
        "lm_head.weight: became NaN or Inf as F32",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(tmp_path: Path, case: str) -> None:
    tensors, status, message = BAD_MODELS[case]
    embedded = {"model.embed_tokens.weight": torch.ones(4, 2)} if len(tensors) == 3 else {}
    base = save_checkpoint(tmp_path / "base", {**LANGUAGE, **embedded})
    model = save_checkpoint(tmp_path / "model", tensors)
    flags = ("--method", "task-arithmetic", "--scale", 2)
    assert failure(tmp_path, status, "--base", base, "--model", model, *flags) == message


@pytest.mark.parametrize(("dtype", "name"), [(torch.int64, "I64"), (torch.bool, "BOOL")])
def test_integers_that_differ(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    rows = [
        {**LANGUAGE, "model.layers.ids": torch.tensor(x, dtype=dtype)} for x in ([1, 0], [1, 1])
    ]
    base, model = (
        save_checkpoint(tmp_path / n, t) for n, t in zip(("base", "model"), rows, strict=True)
    )
    assert failure(tmp_path, 3, "--base", base, "--model", model, "--method", "linear") == (
        f"model.layers.ids: {name} differs between DIR/model and DIR/base; only weights can be"
        " fused"
    )


def test_no_base(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "model", LANGUAGE)
    found = failure(tmp_path, 2, "--model", model, "--method", "task-arithmetic")
    assert found == "--base: is required"


def with_header(path: Path, header: dict[str, Any], size: int) -> Path:
    """A checkpoint whose file has this header, and so many bytes after it."""
    save_checkpoint(path, LANGUAGE)
    text = json.dumps(header).encode()
    (path / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return path


def entry(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("entries", "size", "reason"),
    [
        ((entry(0, 16), entry(16, 24)), 20, "incomplete metadata, file not fully covered"),
        ((entry(0, 16), entry(12, 20)), 20, "invalid offset for tensor `model.norm.weight`"),
    ],
)
def test_a_file_cut_short_or_with_tensors_over_each_other(
    tmp_path: Path, entries: tuple[dict[str, Any], ...], size: int, reason: str
) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    model = with_header(tmp_path / "model", dict(zip(LANGUAGE, entries, strict=True)), size)
    found = failure(tmp_path, 3, "--base", base, "--model", model, "--method", "linear")
    assert found == (
        "DIR/model/model.safetensors: is not a whole safetensors file (Error while deserializing"
        f" header: {reason}); copy or download it again"
    )


def test_an_index_that_names_a_file_outside(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    model = save_checkpoint(tmp_path / "model", LANGUAGE, 2)
    index = model / "model.safetensors.index.json"
    files = dict.fromkeys(LANGUAGE, "../base/model.safetensors")
    index.write_text(json.dumps({"weight_map": files}))
    assert failure(tmp_path, 3, "--base", base, "--model", model, "--method", "linear") == (
        "DIR/model/model.safetensors.index.json: names '../base/model.safetensors', which is no"
        " safetensors file beside it"
    )


def test_an_output_that_is_an_input(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    fuse(base, [base], "linear", tmp_path / "out")
    argv = ("--base", base, "--model", tmp_path / "out", "--method", "linear", "--overwrite")
    assert failure(tmp_path, 4, *argv) == (
        "DIR/out: is read by this command too; choose another --out"
    )


def test_an_output_of_others_is_not_replaced(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    save_checkpoint(tmp_path / "out", LANGUAGE)
    argv = ("--base", base, "--model", base, "--method", "linear", "--overwrite")
    assert failure(tmp_path, 4, *argv) == (
        "DIR/out: is not an output of mllmtool (no report.json); remove it first"
    )


def test_a_missing_model(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    flags = ("--model", tmp_path / "no", "--method", "linear")
    found = failure(tmp_path, 3, "--base", base, *flags)
    assert found == "DIR/no: no such checkpoint directory"


def test_a_tensor_of_no_known_part(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", {"audio_tower.w": torch.ones(2)})
    assert failure(tmp_path, 3, "--base", base, "--model", base, "--method", "linear") == (
        "audio_tower.w: is of no part (vision, projector, language) that is known"
    )


def test_a_patch_of_another_base(tmp_path: Path, tuned: list[Path], patches: list[Path]) -> None:
    argv = ("--base", tuned[1], "--model", patches[0], "--method", "tailor")
    message = failure(tmp_path, 3, *argv)
    assert message.endswith("; give the base that it was made for")


def test_an_output_that_exists(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    (tmp_path / "out").mkdir()
    argv = ("--base", base, "--model", base, "--method", "linear")
    assert failure(tmp_path, 4, *argv) == (
        "DIR/out: exists; choose another --out, or replace it with --overwrite"
    )


def test_a_recipe_spells_except_as_its_flag(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"base: {base}\nmodel: [{base}]\nmethod: ties\nexcept: ['norm']\n")
    done = mllmtool("fuse", "--recipe", recipe, "--out", tmp_path / "out", "--quiet")
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["config"]["except_"] == ["norm"]


def test_a_misspelt_key_in_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("base: b\nmodel: [m]\nmethod: ties\ndensty: 0.2\n")
    message = failure(tmp_path, 2, "--recipe", recipe)
    assert message == "DIR/r.yaml: densty: unknown key; did you mean density?"


# Real processes.


def test_fuse_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", LANGUAGE)
    code = (
        "import sys, mllmtool.cli as c\n"
        "sys.argv = ['mllmtool', *sys.argv[1:]]\n"
        "try:\n    c.main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(str({'torch', 'transformers'} & set(sys.modules)))"
    )
    argv = ["fuse", "--base", base, "--model", base, "--method", "ties", "--out", tmp_path / "o"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv), "--quiet"], capture_output=True, check=True
    )
    assert (done.stdout.decode(), done.stderr.decode()) == (f"{tmp_path}/o\n", "set()")


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """By a limit on the size of files, which is told as a full disk is: by an error of a write."""
    base = save_checkpoint(tmp_path / "base", {"lm_head.weight": torch.ones(1 << 14)})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    argv = ["--base", base, "--model", base, "--method", "linear", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "mllmtool", "fuse", *map(str, argv), "--quiet"],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14)),
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"mllmtool: {tmp_path}/out: cannot be written: [Errno 27] File too large\n"
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("method", ["tsv-m", "wudi"])
def test_matrices_are_the_same_whatever_the_threads_of_blas(tmp_path: Path, method: str) -> None:
    rng = torch.Generator().manual_seed(0)
    paths = []
    for name in ("base", "a", "b"):
        weight = torch.randn(256, 256, dtype=torch.float64, generator=rng)
        paths.append(save_checkpoint(tmp_path / name, {"model.layers.0.up.weight": weight}))
    found = []
    for threads in "12":
        out = tmp_path / threads
        argv = ["--base", paths[0], "--model", paths[1], "--model", paths[2], "--method", method]
        subprocess.run(
            [sys.executable, "-m", "mllmtool", "fuse", *map(str, argv), "--out", out, "--quiet"],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        found.append((out / WEIGHTS).read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, kill: signal.Signals) -> None:
    tensors = {f"model.layers.{i}.weight": torch.rand(1 << 20) for i in range(12)}
    base = save_checkpoint(tmp_path / "base", tensors)
    model = save_checkpoint(tmp_path / "model", {n: 2 * t for n, t in tensors.items()})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    argv = ["fuse", "--base", base, "--model", model, "--method", "ties", "--out", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mllmtool", *map(str, argv), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a suite started in the background hands on that interrupts are ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads)
    )
    hidden = tmp_path / ".out.work/fused" / WEIGHTS
    deadline = time.monotonic() + 60
    while not hidden.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert hidden.exists()
    process.send_signal(kill)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "mllmtool: interrupted; nothing was left half-written\n"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
