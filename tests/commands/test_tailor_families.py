"""`tailor` on a tiny checkpoint of every family, every parameter under the anchored objective."""

import json
import shutil
from pathlib import Path
from typing import Any

import factories
import families
import pytest
import torch
import transformers
from commandline import mllmtool
from safetensors.torch import load_file, save_file
from weights import same_bits

from mllmtool.tailoring.scores import entry_count

DENSITY = 0.1


@pytest.fixture(scope="module", params=families.CHECKPOINTS)
def tailored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `ft`, tuned but for its vision part's first block, and `out`."""
    folder = tmp_path_factory.mktemp(request.param)
    base, ft = families.CHECKPOINTS[request.param](folder / "base"), folder / "ft"
    shutil.copytree(base, ft)
    rng, tuned = torch.Generator().manual_seed(1), load_file(base / "model.safetensors")
    for name, tensor in tuned.items():
        noise = 0.02 * torch.randn(tensor.shape, generator=rng)
        if "vision" not in name or ".0." not in name:
            tuned[name] = tensor + noise
    save_file(tuned, ft / "model.safetensors", metadata={"format": "pt"})
    writes = factories.text_samples if request.param == "llama" else factories.colour_samples
    samples = writes(folder, 6)
    done = mllmtool(
        *("tailor", "--pre", base, "--sft", ft, "--calibration", samples, "--anchor", samples),
        *("--sparsity", DENSITY, "--batch", 1, "--out", folder / "out", "--quiet"),
    )
    assert done.status == 0, done.err
    return folder


def test_every_family_keeps_what_is_asked_and_loads(tailored: Path) -> None:
    before, tuned, after = (
        load_file(tailored / name / "model.safetensors") for name in ("base", "ft", "out")
    )
    rows = json.loads((tailored / "out/report.json").read_text())["results"]["maps"]
    kept = {name: row for row in rows for name in row["tensors"]}
    total = 0
    for name, tensor in before.items():
        differs = after[name] != tensor
        number = int(differs.sum())
        total += number
        assert same_bits(torch.where(differs, tensor, after[name]), tensor), name
        if same_bits(tuned[name], tensor):
            assert number == 0, name
            continue
        asked, row = entry_count(DENSITY, tensor.numel()), kept[name]
        # rows of tokens that no sample holds, and inputs that are always 0, have nothing to keep
        (task,) = row["tasks"]
        whole = row["mixes"] and task["tokens"] and not task["dead"] and "embed" not in name
        assert number <= asked, name
        assert number >= asked - 1 or not whole, name
    assert total == sum(row["changed"] for row in rows)
    assert total > 0.5 * DENSITY * sum(tensor.numel() for tensor in before.values())

    kind: Any = transformers.AutoModelForImageTextToText
    if json.loads((tailored / "base/config.json").read_text())["model_type"] == "llama":
        kind = transformers.AutoModelForCausalLM
    _, info = kind.from_pretrained(tailored / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
