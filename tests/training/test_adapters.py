"""Adapters as peft reads them, and merged."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.data.samples import read_samples
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import load_model
from mllmtool.models.parts import partition
from mllmtool.training.adapters import save_adapters
from mllmtool.training.outcome import merge_checked
from mllmtool.training.selection import select, trainable

KINDS = {
    "plain": "{lora: {rank: 4}}",
    "rslora": "{lora: {rank: 4, alpha: 3, rslora: true}}",
    "dora": "{lora: {rank: 4, dora: true}}",
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
@pytest.mark.parametrize("kind", KINDS)
def test_saved_adapters_give_peft_the_same_model_and_merge_to_it(
    kind: str, llava: Path, colours: Path, tmp_path: Path
) -> None:
    train = [f"language={KINDS[kind]}", "vision={lora: {rank: 2, modules: [q_proj]}}"]
    config = FinetuneConfig.parse(
        {"model": str(llava), "samples": "s", "steps": 1, "lr": 1e-3, "train": train}
    )
    model = load_model(llava)
    targets = select(model, partition(model), config, seed=0).targets
    with torch.no_grad():
        for parameter in trainable(model).values():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(noise, alpha=0.1)
    save_adapters(model, targets, config, tmp_path)
    batch = Encoder.load(llava).train_batch(list(read_samples(colours))[:2], colours.parent)
    del batch["labels"]
    with torch.no_grad():
        ours = model(**batch).logits
        theirs = PeftModel.from_pretrained(load_model(llava), tmp_path / "adapter-language")
        theirs = PeftModel.from_pretrained(theirs.merge_and_unload(), tmp_path / "adapter-vision")
        torch.testing.assert_close(theirs(**batch).logits, ours, rtol=1e-4, atol=1e-5)
        assert merge_checked(model, batch) < 1e-4
        torch.testing.assert_close(model(**batch).logits, ours, rtol=1e-4, atol=1e-5)
        assert (load_model(llava)(**batch).logits - ours).abs().max() > 0.01


def test_config_of_an_adapter_is_the_same_every_time(llava: Path, tmp_path: Path) -> None:
    texts = []
    for folder in ("one", "two"):
        config = FinetuneConfig.parse(
            {"model": str(llava), "samples": "s", "steps": 1, "train": ["language=lora:2"]}
        )
        model = load_model(llava)
        (tmp_path / folder).mkdir()
        save_adapters(
            model, select(model, partition(model), config, 0).targets, config, tmp_path / folder
        )
        texts.append((tmp_path / folder / "adapter-language/adapter_config.json").read_text())
    assert texts[0] == texts[1]
    values = json.loads(texts[0])
    assert (values["r"], values["lora_alpha"], values["base_model_name_or_path"]) == (
        2,
        4.0,
        str(llava),
    )
    assert values["target_modules"][0] == "model.language_model.layers.0.self_attn.q_proj"
