"""`tailor` end to end on tiny real models."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
import transformers
from commandline import Done, mllmtool
from safetensors.torch import load_file, save_file
from weights import same_bits

from mllmtool.checkpoints import Checkpoint
from mllmtool.reports import Report, write_report
from mllmtool.tailoring.scores import entry_count

Tensors = dict[str, torch.Tensor]


def tensors(path: Path) -> Tensors:
    return load_file(path / "model.safetensors")


def results(path: Path) -> Any:
    return json.loads((path / "report.json").read_text())["results"]


def tune(
    path: Path, base: Path, seed: int = 1, where: Callable[[str], bool] = lambda _: True
) -> Path:
    """A copy of `base` with noise on the tensors whose name passes `where`."""
    shutil.copytree(base, path)
    rng = torch.Generator().manual_seed(seed)
    tuned = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=rng) * where(name)
        for name, tensor in tensors(base).items()
    }
    save_file(tuned, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, llava: Path) -> Path:
    """The LLaVA, all tuned but its second decoder block."""
    path = tmp_path_factory.mktemp("tuned") / "ft"
    return tune(path, llava, where=lambda name: "language_model.model.layers.1." not in name)


@pytest.fixture(scope="module")
def tuned_llama(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    """The Llama, all tuned."""
    return tune(tmp_path_factory.mktemp("tuned") / "ft", llama)


def tailor(out: Path, pre: Path, sft: Path, *flags: object) -> Done:
    argv = ("--pre", pre, "--sft", sft, "--out", out, "--quiet")
    return mllmtool("tailor", *argv, *flags)


def made(out: Path, pre: Path, sft: Path, *flags: object) -> tuple[Tensors, Any]:
    """The tensors and results of a run that must succeed."""
    done = tailor(out, pre, sft, *flags)
    assert (done.status, done.out) == (0, f"{out}\n"), done.err
    return tensors(out), results(out)


def changed(before: Tensors, after: Tensors) -> dict[str, int]:
    return {name: int((after[name] != before[name]).sum()) for name in before}


def test_as_typed(tmp_path: Path, llava: Path, colours: Path) -> None:
    """The line of the README, in a folder with a base and what `finetune` made of it."""
    shutil.copytree(llava, tmp_path / "base")
    parts = [f"--train={part}=full" for part in ("projector", "language")]
    steps = ("--steps", 2, "--lr", "1e-2", "--batch", 4, "--micro-batch", 4, "--quiet")
    argv = ("--model", tmp_path / "base", "--samples", colours, *parts, *steps)
    done = mllmtool("finetune", *argv, "--out", tmp_path / "ft")
    assert done.status == 0, done.err
    line = "tailor --pre base --sft ft --sparsity 0.1 --quiet"
    run = subprocess.run(
        [sys.executable, "-m", "mllmtool", *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    out = tmp_path / "ft-tailored"
    assert (run.returncode, run.stdout) == (0, f"{out}\n"), run.stderr
    assert run.stderr == ""

    base, ft, ours = (tensors(tmp_path / name) for name in ("base", "ft", "ft-tailored"))
    found = results(out)
    assert {
        name for name in base if "vision" in name and not same_bits(ours[name], base[name])
    } == set()
    for row in found["maps"]:
        here = sum(changed(base, ours)[name] for name in row["tensors"])
        assert row["changed"] == row["kept"] == here
        limit = sum(entry_count(0.1, base[name].numel()) for name in row["tensors"])
        assert here == limit or "embed_tokens" in row["tensors"][0]
        (task,) = row["tasks"]
        assert task["tailored"] <= task["mask_only"] + 1e-6
    assert found["changed"] == sum(changed(base, ours).values())
    assert found["share"] == found["changed"] / found["entries"]
    assert found["tensors"]["unchanged"] == sum(same_bits(ft[n], base[n]) for n in base)
    assert found["parts"].keys() == {"language", "projector"}

    _, info = transformers.AutoModelForImageTextToText.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    transformers.AutoProcessor.from_pretrained(out)


def test_counts_are_exact_and_reverted_entries_have_the_bases_bits(
    tmp_path: Path, llava: Path, tuned: Path, colours: Path
) -> None:
    ours, found = made(tmp_path / "o", llava, tuned, "--calibration", colours, "--sparsity", 0.3)
    before = tensors(llava)
    seen = {name for row in found["maps"] for name in row["tensors"]}
    assert seen == {name for name in before if "language_model.model.layers.1." not in name}
    for name, tensor in before.items():
        differs = ours[name] != tensor
        assert same_bits(torch.where(differs, tensor, ours[name]), tensor)
        if "embed_tokens" not in name:
            kept = entry_count(0.3, tensor.numel()) if name in seen else 0
            assert int(differs.sum()) == kept, name
    # an embedding keeps rows of tokens that the calibration samples hold, and no others
    rows = (
        ours["language_model.model.embed_tokens.weight"]
        != before["language_model.model.embed_tokens.weight"]
    ).any(dim=1)
    assert 0 < int(rows.sum()) < 40
    assert found["tensors"] == {
        "all": 64,
        "unchanged": 9,
        "tailored": 55,
        "as_tuned": 0,
        "reverted": 0,
    }
    assert found["depth"] == {
        "language_model.model.layers": {"blocks": 2, "tuned": 1},
        "vision_tower.encoder.layers": {"blocks": 2, "tuned": 2},
    }


def test_held_out_errors_are_of_other_samples_and_change_nothing(
    tmp_path: Path, llama: Path, tuned_llama: Path, sums: Path
) -> None:
    flags = ("--calibration", sums, "--num-samples", 5)
    runs = {
        number: made(tmp_path / str(number), llama, tuned_llama, *flags, "--held-out", number)
        for number in (0, 2)
    }
    assert all(same_bits(runs[0][0][name], tensor) for name, tensor in runs[2][0].items())
    for number, (_, found) in runs.items():
        for row in found["maps"]:
            (task,) = row["tasks"]
            assert (task["held_out"] is None) == (number == 0)
            if task["held_out"] and row["mixes"]:
                assert task["held_out"]["tailored"] != task["tailored"]
                assert 0 < task["held_out"]["tailored"] < 2


def test_passes_in_half_precision_and_in_files(
    tmp_path: Path, llava: Path, tuned: Path, colours: Path
) -> None:
    data = ("--calibration", colours, "--inputs", "tuned")
    whole, _ = made(tmp_path / "whole", llava, tuned, *data)
    (tmp_path / "cache").mkdir()
    filed, _ = made(tmp_path / "f", llava, tuned, *data, "--cache-dir", tmp_path / "cache")
    assert all(same_bits(filed[name], tensor) for name, tensor in whole.items())
    assert not list((tmp_path / "cache").iterdir())
    half, found = made(tmp_path / "half", llava, tuned, *data, "--dtype", "bfloat16")
    before = tensors(llava)
    for name, tensor in whole.items():
        kept, ours = tensor != before[name], half[name] != before[name]
        assert half[name].dtype == tensor.dtype
        assert int((kept & ours).sum()) >= 0.8 * int(kept.sum()), name
    assert all(task["tailored"] < 1 for row in found["maps"] for task in row["tasks"])


def test_density_one_is_the_tuned_model(
    tmp_path: Path, llava: Path, tuned: Path, colours: Path
) -> None:
    done = tailor(tmp_path / "o", llava, tuned, "--calibration", colours, "--sparsity", 1)
    assert done.status == 0, done.err
    assert Checkpoint.open(tmp_path / "o").fingerprint() == Checkpoint.open(tuned).fingerprint()


def test_anchors_hold_the_model_back(
    tmp_path: Path, llama: Path, tuned_llama: Path, sums: Path
) -> None:
    before, flags = tensors(llama), ("--calibration", sums, "--anchor", sums, "--sparsity", 1)
    drifts = []
    for weight in (0, 1, 1e6):
        out = tmp_path / str(weight)
        ours, found = made(out, llama, tuned_llama, *flags, "--anchor-weight", weight)
        drifts.append(max(float((ours[name] - before[name]).norm()) for name in before))
        rows = [task["anchor_drift"] for row in found["maps"] for task in row["tasks"]]
        # the same samples on both sides: the change is 1 / (1 + weight) of the tuned one
        assert rows == pytest.approx([1 / (1 + weight) ** 2] * len(rows), rel=1e-3, abs=1e-9)
    assert drifts[0] > 1.5 * drifts[1] > 100 * drifts[2]


def test_a_patch_file_makes_the_same_checkpoint(
    tmp_path: Path, llama: Path, tuned_llama: Path, sums: Path
) -> None:
    flags = ("--calibration", sums, "--anchor", sums, "--sparsity", 0.1)
    made(tmp_path / "whole", llama, tuned_llama, *flags)
    done = tailor(tmp_path / "p", llama, tuned_llama, *flags, "--format", "patch")
    assert done.status == 0, done.err
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "patch.safetensors",
        "report.json",
        "error_by_depth.png",
        "density_by_type.png",
    }
    patch, applied = tmp_path / "p" / "patch.safetensors", tmp_path / "applied"
    assert (
        mllmtool("patch", "apply", patch, "--base", llama, "--out", applied, "--quiet").status == 0
    )
    prints = {Checkpoint.open(tmp_path / name).fingerprint() for name in ("whole", "applied")}
    assert len(prints) == 1
    assert results(tmp_path / "p") == results(tmp_path / "whole")
    info = json.loads(mllmtool("patch", "info", patch).out)
    assert info["kept"] == results(tmp_path / "p")["kept"]
    assert info["origin"]["command"] == "tailor"


def test_the_same_bytes_again_and_a_report_is_a_recipe(
    tmp_path: Path, llava: Path, tuned: Path, colours: Path
) -> None:
    flags = ("--calibration", colours, "--num-samples", 5, "--seed", 7)
    made(tmp_path / "one", llava, tuned, *flags)
    recipe = tmp_path / "one" / "report.json"
    done = mllmtool("tailor", "--recipe", recipe, "--out", tmp_path / "two", "--quiet")
    assert done.status == 0, done.err
    reports = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("one", "two")]
    assert reports[0].pop("run").keys() >= {"moments_seconds", "solving_seconds"}
    reports[1].pop("run")
    assert reports[0] == reports[1]
    made(tmp_path / "three", llava, tuned, *flags[:-1], 8)
    assert results(tmp_path / "three")["maps"] != reports[0]["results"]["maps"]


def test_several_tuned_models_are_their_patches_stacked(
    tmp_path: Path, llama: Path, tuned_llama: Path, sums: Path
) -> None:
    other = tune(tmp_path / "other", llama, seed=2)
    calibration = ("--calibration", sums, "--sparsity", 0.2)
    both, found = made(
        tmp_path / "both", llama, tuned_llama, *calibration, "--sft", other, "--calibration", sums
    )
    for name, sft in (("a", tuned_llama), ("b", other)):
        tailor(tmp_path / name, llama, sft, *calibration, "--format", "patch")
    patches = [tmp_path / name / "patch.safetensors" for name in "ab"]
    stack = ("--base", llama, "--out", tmp_path / "s", "--quiet")
    assert mllmtool("patch", "stack", *patches, *stack).status == 0
    applied = ("--base", llama, "--out", tmp_path / "applied", "--quiet")
    mllmtool("patch", "apply", tmp_path / "s" / "patch.safetensors", *applied)
    for name, tensor in tensors(tmp_path / "applied").items():
        assert torch.allclose(both[name], tensor, rtol=0, atol=1e-7), name
        assert torch.equal(both[name] != tensors(llama)[name], tensor != tensors(llama)[name])
    assert [task["sft"] for task in found["maps"][0]["tasks"]] == [0, 1]
    assert 0.2 < found["share"] < 0.4


def test_a_sweep_writes_the_patches_of_single_runs(
    tmp_path: Path, llama: Path, tuned_llama: Path, sums: Path
) -> None:
    data = ("--calibration", sums, "--anchor", sums, "--quiet")
    both = ("--pre", llama, "--sft", tuned_llama)
    swept = ("--sweep", "density=0.05,0.2", "anchor-weight=0.3,1,3")
    done = mllmtool("tailor", *both, *swept, *data, "--out", tmp_path / "s")
    assert done.status == 0, done.err
    points = results(tmp_path / "s")["points"]
    assert [point["patch"] for point in points] == [
        f"density-{density}_anchor-weight-{weight}/patch.safetensors"
        for density in ("0.05", "0.2")
        for weight in ("0.3", "1", "3")
    ]
    one = ("--sparsity", 0.2, "--anchor-weight", 3, "--inputs", "tuned", "--format", "patch")
    done = mllmtool("tailor", *both, *one, *data, "--out", tmp_path / "one")
    assert done.status == 0, done.err
    single, found = load_file(tmp_path / "one/patch.safetensors"), results(tmp_path / "one")
    last = load_file(tmp_path / "s" / points[-1]["patch"])
    assert single.keys() == last.keys()
    assert all(same_bits(single[name], last[name]) for name in single)
    assert points[-1]["share"] == found["share"]

    # and from moments that were kept, without a sample
    done = tailor(tmp_path / "k", llama, tuned_llama, *data[:4], "--save-moments", tmp_path / "m")
    assert done.status == 0, done.err
    again = ("--moments", tmp_path / "m", "--preset", "anchored", "--out", tmp_path / "t")
    done = mllmtool("tailor", *both, *swept, *again, "--quiet")
    assert done.status == 0, done.err
    kept = load_file(tmp_path / "t" / points[-1]["patch"])
    assert all(same_bits(kept[name], last[name]) for name in last)


def test_one_task_twice_is_that_task_by_every_rule_but_the_sum(
    tmp_path: Path, llama: Path, tuned_llama: Path, sums: Path
) -> None:
    data = ("--calibration", sums, "--inputs", "tuned")
    alone, _ = made(tmp_path / "alone", llama, tuned_llama, *data)
    twice = (*data, "--sft", tuned_llama, "--calibration", sums, "--combine")
    for rule in ("average", "ties", "joint", "sum"):
        ours, _ = made(tmp_path / rule, llama, tuned_llama, *twice, rule)
        for name, base in tensors(llama).items():
            change = (2 if rule == "sum" else 1) * (alone[name] - base)
            assert torch.allclose(ours[name] - base, change, rtol=1e-3, atol=1e-5), (rule, name)


def test_blocks_outside_the_range_go_back_to_the_base(
    tmp_path: Path, llava: Path, tuned: Path, colours: Path
) -> None:
    flags = ("--calibration", colours, "--blocks", "vision=1", "--blocks", "1")
    ours, found = made(tmp_path / "o", llava, tuned, *flags)
    before = tensors(llava)
    moved = {name for name, number in changed(before, ours).items() if number}
    assert not any("model.layers." in name or ".encoder.layers.0." in name for name in moved)
    assert any(".encoder.layers.1." in name for name in moved)
    assert any("multi_modal_projector" in name for name in moved)
    assert found["tensors"]["reverted"] > 0


def test_blocks_that_the_base_does_not_have(
    tmp_path: Path, llava: Path, tuned: Path, colours: Path
) -> None:
    flags = ("--calibration", colours, "--blocks", "1-9")
    done = tailor(tmp_path / "o", llava, tuned, *flags)
    message = f"--blocks: {llava} has 2 blocks in its language part, and 2 is asked for"
    assert refused(tmp_path, done) == (2, f"mllmtool: {message}; they count from 0\n")


def test_parts_and_others(tmp_path: Path, llava: Path, tuned: Path, colours: Path) -> None:
    before, after = tensors(llava), tensors(tuned)
    common = ("--calibration", colours, "--parts", "projector", "--parts", "vision")
    for others, source in (("pre", before), ("sft", after)):
        ours, found = made(tmp_path / others, llava, tuned, *common, "--others", others)
        for name, tensor in ours.items():
            linear = tensor.ndim == 2 and "position" not in name
            if "language" in name:
                assert same_bits(tensor, before[name]), name
            elif not linear:
                assert same_bits(tensor, source[name]), name
        count = found["tensors"]
        assert count["tailored"] == 14
        assert (count["as_tuned"] > 0) == (others == "sft")
        assert sum(count[key] for key in ("unchanged", "tailored", "as_tuned", "reverted")) == 64


def test_the_released_preset(tmp_path: Path, llava: Path, tuned: Path, colours: Path) -> None:
    flags = ("--calibration", colours, "--preset", "released", "--sparsity", 0.25)
    ours, found = made(tmp_path / "o", llava, tuned, *flags)
    before, after = tensors(llava), tensors(tuned)
    for name, tensor in ours.items():
        if name.endswith(("proj.weight", "fc1.weight", "fc2.weight")):
            kept = int((tensor != before[name]).sum())
            # one threshold a block, an entry short of the quarter, as theirs
            assert kept in (0, entry_count(0.25, tensor.numel()) - 1), name
        elif "multi_modal_projector.linear" in name and name.endswith("weight"):
            assert same_bits(tensor, before[name])
        else:
            assert same_bits(tensor, after[name]), name
    solvers = {task["solver"] for row in found["maps"] for task in row["tasks"]}
    assert solvers == {"released"}


def test_a_tower_that_no_sample_reaches_goes_back_to_the_base(
    tmp_path: Path, llava: Path, tuned: Path, sums: Path
) -> None:
    ours, _ = made(tmp_path / "o", llava, tuned, "--calibration", sums)
    before = tensors(llava)
    assert all(same_bits(ours[n], before[n]) for n in before if "vision" in n or "projector" in n)
    warnings = json.loads((tmp_path / "o" / "report.json").read_text())["warnings"]
    assert warnings[0] == (
        "multi_modal_projector.linear_1.weight, multi_modal_projector.linear_2.weight,"
        " vision_tower.embeddings.class_embedding and 26 more: no calibration token reaches them;"
        " they go back to the base"
    )


def test_half_precision_keeps_its_bits(tmp_path: Path, llama: Path, sums: Path) -> None:
    rng = torch.Generator().manual_seed(3)
    for name in ("base", "ft"):
        shutil.copytree(llama, tmp_path / name)
        stored = {k: t.bfloat16() for k, t in tensors(llama).items()}
        if name == "ft":
            stored = {
                k: (t.float() * (1 + 0.01 * torch.randn(t.shape, generator=rng))).bfloat16()
                for k, t in stored.items()
            }
        save_file(stored, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    base, ft = tmp_path / "base", tmp_path / "ft"
    whole, found = made(tmp_path / "one", base, ft, "--calibration", sums, "--sparsity", 1)
    assert all(same_bits(whole[name], tensor) for name, tensor in tensors(ft).items())
    assert found["share"] < 1  # rounding left some weights as they were, and these count
    ours, found = made(tmp_path / "some", base, ft, "--calibration", sums, "--sparsity", 0.2)
    assert found["changed"] == sum(changed(tensors(base), ours).values()) <= found["kept"]
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}


def test_the_plan_loads_no_model(tmp_path: Path, llava: Path, tuned: Path, colours: Path) -> None:
    flags = ("--calibration", colours, "--anchor", colours, "--num-samples", 4, "--dry-run")
    done = tailor(tmp_path / "o", llava, tuned, *flags)
    data = {"samples": str(colours), "images": str(colours.parent), "drawn": 4}
    assert json.loads(done.out) == {
        "preset": "anchored",
        "points": [],
        "choices": {
            "density": 0.1,
            "anchor_weight": 1.0,
            "salience_weight": 0.5,
            "damping": 0.01,
            "solver": "exact",
            "strength": 1.0,
            "mask": {
                "sensitivity": "change",
                "denominator": "full",
                "normalise": "row",
                "scope": "matrix",
                "dead": "revert",
                "eligible": "changed",
                "count": "all",
            },
            "damping_by": "mean",
            "combine": "mean",
        },
        "calibration": [data],
        "anchor": data,
        "tuned_tensors": 55,
        "unchanged_tensors": 9,
        "depth": {
            "language_model.model.layers": {"blocks": 2, "tuned": 1},
            "vision_tower.encoder.layers": {"blocks": 2, "tuned": 2},
        },
    }
    assert not (tmp_path / "o").exists()


def refused(tmp_path: Path, done: Done) -> tuple[int, str]:
    """Status and message of a run that left nothing."""
    assert done.out == ""
    assert not (tmp_path / "o").exists()
    assert not list(tmp_path.glob(".o*"))
    return done.status, done.err.replace(str(tmp_path), "DIR")


def test_without_calibration_data(tmp_path: Path, llama: Path) -> None:
    sft = tune(tmp_path / "ft", llama)
    assert refused(tmp_path, tailor(tmp_path / "o", llama, sft)) == (
        2,
        "mllmtool: --calibration: is required, as DIR/ft has no report.json to name its training"
        " data; or pass --solver none, which needs no samples\n",
    )
    for config, message in (
        (
            {"base": "x"},
            "--calibration: is required, as DIR/ft/report.json names no training data; is it"
            " finetune's?",
        ),
        (
            {"samples": "lost.jsonl", "images": None},
            "lost.jsonl: which DIR/ft/report.json names, is neither here nor in DIR/ft; pass"
            " --calibration",
        ),
    ):
        shape: dict[str, Any] = {
            "inputs": [],
            "outputs": [],
            "results": {},
            "warnings": [],
            "run": {},
        }
        report = Report(command="finetune", version="0", seed=0, config=config, **shape)
        write_report(report, sft)
        status = 2 if "base" in config else 3
        assert refused(tmp_path, tailor(tmp_path / "o", llama, sft)) == (
            status,
            f"mllmtool: {message}\n",
        )


def test_without_samples_the_largest_changes_are_kept(tmp_path: Path, llava: Path) -> None:
    sft = tune(tmp_path / "ft", llava)
    ours, found = made(tmp_path / "o", llava, sft, "--solver", "none", "--sparsity", 0.2)
    before, after = tensors(llava), tensors(sft)
    for name, tensor in before.items():
        kept = (ours[name] != tensor).flatten()
        changes = (after[name] - tensor).abs().flatten()
        assert int(kept.sum()) == entry_count(0.2, tensor.numel()), name
        assert torch.equal(ours[name].flatten()[kept], after[name].flatten()[kept])
        assert changes[kept].min() >= changes[~kept].max(), name
    assert found["wise_ft"] is None


def test_the_training_data_beside_the_report(tmp_path: Path, llama: Path) -> None:
    sft = tune(tmp_path / "ft", llama)
    factories.text_samples(sft / "data")
    shape: dict[str, Any] = {"inputs": [], "outputs": [], "results": {}, "warnings": [], "run": {}}
    config = {"samples": "data/samples.jsonl", "images": None}
    write_report(Report(command="finetune", version="0", seed=0, config=config, **shape), sft)
    done = tailor(tmp_path / "o", llama, sft, "--dry-run")
    assert json.loads(done.out)["calibration"] == [
        {"samples": str(sft / "data/samples.jsonl"), "images": str(sft / "data"), "drawn": 8}
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sparsity", "0"), "--sparsity: 0.0: input should be greater than 0"),
        (("--sparsity", "-0.1"), "--sparsity: -0.1: input should be greater than or equal to 0"),
        (("--sparsity", "1.5"), "--sparsity: 1.5: input should be less than or equal to 1"),
        (("--preset", "anchored"), "--preset anchored: needs --anchor"),
        (
            ("--preset", "paper", "--anchor", "a.jsonl"),
            "--anchor: is not read by --preset paper; use anchored",
        ),
        (
            ("--preset", "released", "--solver", "sweep"),
            "--solver: is not read by --preset released, which has its own",
        ),
        (
            ("--preset", "released", "--mask", "{scope: row}"),
            "--mask: is not read by --preset released, which has its own",
        ),
        (
            ("--sweep", "density=2"),
            "--sweep: --sparsity: 2.0: input should be less than or equal to 1",
        ),
        (("--sweep", "anchor-weight=1"), "--sweep anchor-weight: needs --anchor"),
        (
            ("--blocks", "3-"),
            "--blocks (0): '3-': is no range of blocks such as 20-31 or vision=0-3",
        ),
        (
            ("--mask", "{scope: column}"),
            "--mask (scope): 'column': input should be 'matrix', 'block' or 'row'",
        ),
        (
            ("--calibration", "a.jsonl", "--calibration", "b.jsonl"),
            "--calibration: 2 given for 1 --sft",
        ),
    ],
)
def test_flags_that_cannot_be(
    tmp_path: Path, llama: Path, flags: tuple[str, ...], message: str
) -> None:
    done = tailor(tmp_path / "o", llama, llama, *flags)
    assert refused(tmp_path, done) == (2, f"mllmtool: {message}\n")


def test_inputs_that_are_wrong(tmp_path: Path, llama: Path, llava: Path, sums: Path) -> None:
    def run(sft: Path, samples: Path = sums, *flags: object) -> tuple[int, str]:
        done = tailor(tmp_path / "o", llama, sft, "--calibration", samples, *flags)
        return refused(tmp_path, done)

    assert run(llama) == (3, f"mllmtool: {llama}: is both --pre and --sft; nothing to tailor\n")
    shutil.copytree(llama, tmp_path / "same")
    assert run(tmp_path / "same") == (
        3,
        f"mllmtool: DIR/same: equals {llama} in every tensor; nothing to tailor\n",
    )
    assert run(llava) == (
        3,
        f"mllmtool: {llava}: lacks model.embed_tokens.weight,"
        " model.layers.0.input_layernorm.weight, model.layers.0.mlp.down_proj.weight and 17 more"
        " and has language_model.lm_head.weight, language_model.model.embed_tokens.weight,"
        " language_model.model.layers.0.input_layernorm.weight and 61 more besides, against"
        f" {llama}; both must come from the same base\n",
    )
    ft = tune(tmp_path / "ft", llama)
    (tmp_path / "empty.jsonl").write_text("\n")
    assert run(ft, tmp_path / "empty.jsonl") == (3, "mllmtool: DIR/empty.jsonl: has no samples\n")
    assert run(ft, sums, "--anchor", tmp_path / "empty.jsonl") == (
        3,
        "mllmtool: DIR/empty.jsonl: has no samples\n",
    )
    question = {"id": "q", "messages": factories.turns("Why?")}
    factories.write_rows(tmp_path / "bare.jsonl", [question])
    assert run(ft, tmp_path / "bare.jsonl") == (
        3,
        "mllmtool: sample q: holds no answer to learn: no assistant turn has text\n",
    )
    broken = tensors(ft)
    broken["model.norm.weight"][3] = float("inf")
    shutil.copytree(ft, tmp_path / "inf")
    save_file(broken, tmp_path / "inf" / "model.safetensors", metadata={"format": "pt"})
    message = "mllmtool: model.norm.weight: holds NaN or Inf in DIR/inf\n"
    assert run(tmp_path / "inf") == (5, message)
    done = tailor(tmp_path / "o", tmp_path / "inf", ft, "--calibration", sums)
    assert refused(tmp_path, done) == (5, message)
    assert run(ft, sums, "--cache-dir", tmp_path / "lost") == (
        2,
        "mllmtool: --cache-dir: DIR/lost is no folder that can be written to\n",
    )
    status, message = run(ft, sums, "--device", "nowhere")
    assert (status, message.startswith("mllmtool: --device: nowhere cannot be used: ")) == (2, True)
