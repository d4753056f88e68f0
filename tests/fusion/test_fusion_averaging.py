"""Fisher merging and RegMean: by hand, and against least squares on the data themselves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commandline import mllmtool
from fusing import prepare, run, save_moments
from safetensors.torch import load_file, save_file
from weights import retuned, save_checkpoint

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.fuse import FuseConfig
from mllmtool.errors import CheckpointError, ConfigError, MismatchError, NumericError
from mllmtool.fusion import METHODS, settings_for
from mllmtool.fusion.statistics import Moments, open_diagonal


def by_fisher(
    path: Path,
    base: list[float],
    models: list[list[float]],
    diagonals: list[list[float]],
    **flags: Any,
) -> list[float]:
    inputs = prepare(
        path, {"w": torch.tensor(base).float()}, [{"w": torch.tensor(m).float()} for m in models]
    )
    opened = []
    for i, diagonal in enumerate(diagonals):
        save_file({"w": torch.tensor(diagonal).float()}, path / f"{i}.safetensors")
        opened.append(open_diagonal(str(path / f"{i}.safetensors"), inputs.base, ["w"]))
    found = run(path / "out", replace(inputs, diagonals=tuple(opened)), "fisher", **flags)[0]
    result: list[float] = found["w"].tolist()
    return result


def test_fisher_by_hand(tmp_path: Path) -> None:
    # (1 * 3 + 3 * 5) / 4; only the first counts; none counts, so the mean of 1 and 9
    models: list[list[float]] = [[3, 7, 1], [5, 2, 9]]
    found = by_fisher(tmp_path, [0, 0, 0], models, [[1, 2, 0], [3, 0, 0]])
    assert found == [4.5, 7, 5]


def test_fisher_takes_weights(tmp_path: Path) -> None:
    # (2 * 1 * 3 + 1 * 3 * 5) / 5 = 4.2
    found = by_fisher(tmp_path, [0.0], [[3.0], [5.0]], [[1.0], [3.0]], weight=(2, 1))
    assert found == pytest.approx([4.2])


def test_fisher_by_equal_diagonals_is_the_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values, diagonal = rng.standard_normal((3, 50)), (rng.random(50) + 0.1).tolist()
    found = by_fisher(tmp_path, [0.0] * 50, values.tolist(), [diagonal] * 3)
    assert found == pytest.approx(values.mean(axis=0).tolist(), abs=1e-6)


def test_diagonals_are_not_negative(tmp_path: Path) -> None:
    with pytest.raises(NumericError) as raised:
        by_fisher(tmp_path, [0.0], [[3.0], [5.0]], [[1.0], [-3.0]])
    assert str(raised.value) == "w: a Fisher diagonal is negative; it is a mean of squares"


def test_diagonals_are_of_the_base_and_there(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, {"w": torch.zeros(3)}, [{"w": torch.ones(3)}])
    save_file({"w": torch.ones(2)}, tmp_path / "short.safetensors")
    with pytest.raises(MismatchError, match=r"^w: shape"):
        open_diagonal(str(tmp_path / "short.safetensors"), inputs.base, ["w"])
    with pytest.raises(CheckpointError, match="no such file; a Fisher diagonal is"):
        open_diagonal(str(tmp_path / "none.safetensors"), inputs.base, ["w"])


def by_regmean(
    path: Path, taus: list[Any], grams: list[Any], **flags: Any
) -> tuple[Any, dict[str, Any]]:
    tensors = [torch.tensor(np.asarray(tau), dtype=torch.float64) for tau in taus]
    models = [{"w": 1 + tau, "b": torch.full((2,), float(i))} for i, tau in enumerate(tensors)]
    inputs = prepare(path, {"w": torch.ones_like(tensors[0]), "b": torch.zeros(2)}, models)
    kept = [
        str(
            save_moments(
                path / f"m{i}",
                model.fingerprint(),
                {"w": torch.tensor(np.asarray(gram), dtype=torch.float32)},
            )
        )
        for i, (model, gram) in enumerate(zip(inputs.models, grams, strict=True))
    ]
    found, _, findings = run(
        path / "out", replace(inputs, moments=Moments(kept)), "regmean", **flags
    )
    assert found["b"].tolist() == [(len(taus) - 1) / 2] * 2
    return found["w"].numpy() - 1, findings


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # sum of the moments ((3 1) (1 3)), pull (4 2) + (0 4) = (4 6)
        (1, [6 / 8, 14 / 8]),
        # ((3 0.5) (0.5 3)), pull (4 1) + (0 4)
        (0.5, [9.5 / 8.75, 13 / 8.75]),
        # each input for itself: 2 * 2 / 3 and 1 * 4 / 3
        (0, [4 / 3, 4 / 3]),
    ],
)
def test_regmean_by_hand(tmp_path: Path, alpha: float, expected: list[float]) -> None:
    grams = [[[2, 1], [1, 2]], [[1, 0], [0, 1]]]
    found, findings = by_regmean(tmp_path, [[[2, 0]], [[0, 4]]], grams, alpha=alpha)
    assert found == pytest.approx(np.array([expected]))
    assert findings == {"matrices": 1, "averaged": ["b"]}


def test_regmean_averages_inputs_that_are_always_zero(tmp_path: Path) -> None:
    grams = [[[2, 0], [0, 0]], [[1, 0], [0, 0]]]
    found, _ = by_regmean(tmp_path, [[[3, 1]], [[0, 3]]], grams)
    assert found == pytest.approx(np.array([[2, 2]]))


def test_regmean_with_a_column_of_ones_leaves_it_out(tmp_path: Path) -> None:
    grams = [[[2, 9], [9, 1]], [[1, 9], [9, 1]]]
    found, _ = by_regmean(tmp_path, [[[3.0]], [[0.0]]], grams)
    assert found == pytest.approx(np.array([[2]]))


def test_regmean_is_least_squares_on_the_outputs_of_all_models(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = [rng.standard_normal((40, 5)) @ rng.standard_normal((5, 5)) for _ in range(3)]
    taus = [rng.standard_normal((4, 5)) for _ in range(3)]
    found, _ = by_regmean(tmp_path, taus, [x.T @ x / 40 for x in data], alpha=1)
    outputs = np.vstack([x @ tau.T for x, tau in zip(data, taus, strict=True)])
    expected = np.linalg.lstsq(np.vstack(data), outputs, rcond=None)[0].T
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_regmean_refuses_what_it_cannot_solve(tmp_path: Path) -> None:
    grams = [[[1, 1], [1, 1]]] * 2
    with pytest.raises(NumericError) as raised:
        by_regmean(tmp_path / "1", [[[3, 1]], [[0, 3]]], grams, alpha=1)
    assert str(raised.value) == "w: its moments are not positive definite; lower --alpha"
    with pytest.raises(MismatchError, match=r"a moment of shape \(4, 4\) is of no 2 inputs"):
        by_regmean(tmp_path / "2", [[[3, 1]], [[0, 3]]], [np.eye(4).tolist()] * 2)


def test_moments_are_found_by_the_model(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, {"w": torch.zeros(1, 2)}, [{"w": torch.ones(1, 2)}])
    other = save_moments(tmp_path / "m", "0" * 64, {"w": torch.eye(2)})
    with pytest.raises(MismatchError, match="holds no moments of a model"):
        run(tmp_path / "out", replace(inputs, moments=Moments([str(other)])), "regmean")
    with pytest.raises(CheckpointError, match=r"holds no moments\.json; make it with tailor"):
        Moments([str(tmp_path)])
    (other / "moments.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not an index of moments"):
        Moments([str(other)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"method": "fisher"}, "--fisher: fisher needs it"),
        ({"method": "regmean"}, "--moments: regmean needs it"),
        (
            {"method": "ties", "moments": ["m"]},
            "--moments: ties does not read it; of use to regmean",
        ),
        ({"method": "fisher", "fisher": ["f"]}, "--fisher: 1 given for 2 --model"),
    ],
)
def test_refused_flags(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_for(FuseConfig.parse({"base": "b", "model": ["x", "y"], **flags}))
    assert message in str(raised.value)


def test_defaults_are_those_of_the_papers() -> None:
    assert METHODS["fisher"].reads == {"weight": 1}
    assert METHODS["regmean"].reads == {"weight": 1, "alpha": 0.9}


def test_regmean_reads_what_tailor_kept(tmp_path: Path, llama: Path, sums: Path) -> None:
    tuned = retuned(tmp_path / "tuned", llama, 1)
    kept = tmp_path / "kept"
    flags = ("--calibration", sums, "--save-moments", kept, "--out", tmp_path / "tailored")
    done = mllmtool("tailor", "--pre", llama, "--sft", tuned, *flags, "--quiet")
    assert (done.status, done.err) == (0, "")
    given = ("--method", "regmean", "--moments", kept, "--out", tmp_path / "fused")
    done = mllmtool("fuse", "--base", llama, "--model", tuned, *given, "--quiet")
    assert (done.status, done.err) == (0, "")
    report = json.loads((tmp_path / "fused" / "report.json").read_text())
    assert [each["role"] for each in report["inputs"]] == ["base", "model", "moments"]
    method = report["results"]["method"]
    names = Checkpoint.open(llama).names
    assert method["averaged"] == sorted(
        n for n in names if "embed" in n or "head" in n or "norm" in n
    )
    assert method["matrices"] == len(names) - len(method["averaged"])
    # of one model, its own weights, whatever its moments
    fused, expected = (load_file(p / "model.safetensors") for p in (tmp_path / "fused", tuned))
    for name, tensor in expected.items():
        assert torch.allclose(fused[name].float(), tensor.float(), rtol=1e-2, atol=1e-5), name


def test_fisher_from_the_command_line(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", {"lm_head.weight": torch.zeros(1, 2)})
    model = save_checkpoint(tmp_path / "tuned", {"lm_head.weight": torch.tensor([[3.0, 7.0]])})
    for name, diagonal in (("a", [1.0, 1.0]), ("b", [3.0, 0.0])):
        save_file({"lm_head.weight": torch.tensor([diagonal])}, tmp_path / f"{name}.safetensors")
    given = ("--fisher", tmp_path / "a.safetensors", "--fisher", tmp_path / "b.safetensors")
    models = ("--model", model, "--model", base)
    out = ("--method", "fisher", "--out", tmp_path / "fused", "--quiet")
    done = mllmtool("fuse", "--base", base, *models, *given, *out)
    assert (done.status, done.err) == (0, "")
    found = load_file(tmp_path / "fused" / "model.safetensors")["lm_head.weight"]
    assert found.tolist() == [[0.75, 7.0]]
