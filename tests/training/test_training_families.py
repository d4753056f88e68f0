"""Every family tuned, adapted, tailored and evaluated, from every layout of names on disk."""

import json
import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import families
import pytest
import suite_factory
import torch
import transformers

from mllmtool.checkpoints import Checkpoint
from mllmtool.commands import finetune, tailor
from mllmtool.configs.base import RunConfig
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.configs.tailor import TailorConfig
from mllmtool.context import Context
from mllmtool.data.samples import read_samples
from mllmtool.data.suites import read_suite
from mllmtool.errors import ConfigError
from mllmtool.evaluation import runs
from mllmtool.evaluation.labelled import open_labelled
from mllmtool.evaluation.store import opened
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.parts import part_of
from mllmtool.runner import execute
from mllmtool.training.job import prepare

ENDS = {
    "llava": "</s>",
    "llava_next": "</s>",
    "qwen2_vl": "<|im_end|>",
    "qwen2_5_vl": "<|im_end|>",
    "instructblip": "</s>",
    "idefics3": "<end_of_utterance>",
    "paligemma": "<eos>",
    "llama": "<|im_end|>",
}
LAYOUTS = [
    *((kind, "saved") for kind in ENDS),
    *((kind, "memory") for kind in ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "paligemma")),
    *((kind, "hub") for kind in ("llava", "llava_next", "paligemma")),
]
Bases = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """A family's tiny checkpoint, in one of the layouts of names that its files come in."""
    folder = tmp_path_factory.mktemp("bases")

    @cache
    def base(kind: str, layout: str = "saved") -> Path:
        if layout == "saved":
            return families.CHECKPOINTS[kind](folder / kind)
        return families.laid_out(base(kind), folder / f"{kind}-{layout}", layout)

    return base


def tuned(base: Path, samples: Path, out: Path, **values: Any) -> tuple[Path, dict[str, Any]]:
    """Two steps, in process; the directory and the report's results."""
    fixed = {"steps": 2, "batch": 4, "micro_batch": 4, "lr": 1e-2, "warmup": 0.0}
    config = FinetuneConfig.parse({"model": str(base), "samples": str(samples), **fixed, **values})
    path = execute("finetune", finetune.run, config, RunConfig(out=str(out), quiet=True))
    return path, json.loads((path / "report.json").read_text())["results"]


def changed(base: Path, path: Path) -> list[str]:
    one, two = Checkpoint.open(base), Checkpoint.open(path)
    assert one.names == two.names
    assert [one.info(name) for name in one.names] == [two.info(name) for name in two.names]
    return [name for name in one.names if not torch.equal(one[name], two[name])]


@pytest.fixture
def samples(request: pytest.FixtureRequest, colours: Path, sums: Path) -> Path:
    """Samples that the family of the test's `kind` takes."""
    return sums if request.node.callspec.params["kind"] == "llama" else colours


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_language_learns_and_all_else_is_the_bases(
    kind: str, layout: str, bases: Bases, samples: Path, tmp_path: Path
) -> None:
    base = bases(kind, layout)
    path, results = tuned(base, samples, tmp_path / "ft", train=["language=full"])
    assert {part_of(name) for name in changed(base, path)} == {"language"}
    assert all(math.isfinite(point["loss"]) for point in results["loss"]["curve"])
    assert results["loss"]["last"] < results["loss"]["first"]
    whole = "CausalLM" if kind == "llama" else "ImageTextToText"
    auto = getattr(transformers, f"AutoModelFor{whole}")
    _, seen = auto.from_pretrained(path, output_loading_info=True)
    assert not any(seen[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched"))
    files = {file.relative_to(base) for file in base.rglob("*") if file.is_file()}
    for file in files - {Path("model.safetensors")}:
        assert (path / file).read_bytes() == (base / file).read_bytes(), file
    families.own_processor(path)


@pytest.mark.parametrize("kind", ENDS)
def test_labels_are_the_answer_and_its_end(kind: str, bases: Bases, samples: Path) -> None:
    encoder = Encoder.load(bases(kind, "saved"))
    for one in read_samples(samples):
        labels = encoder.train_row(one, samples.parent).labels
        text = encoder.tokenizer.decode(labels[labels != IGNORED])
        assert text.strip() == f"{one.messages[-1].content}{ENDS[kind]}"


@pytest.mark.parametrize("kind", ENDS)
def test_adapters_are_merged_into_language_and_all_of_it_tailored_and_evaluated(
    kind: str, bases: Bases, samples: Path, tmp_path: Path
) -> None:
    base = bases(kind, "saved")
    parts = ("language",) if kind == "llama" else ("vision", "projector", "language")
    train = [f"{part}={'lora' if part == 'language' else 'full'}" for part in parts]
    path, results = tuned(base, samples, tmp_path / "ft", train=train, weight_decay=0.1)
    moved = changed(base, path)
    adapted = [name for name in moved if part_of(name) == "language"]
    # q, k, v, o, gate, up and down of two layers
    assert len(adapted) == results["parts"]["language"]["lora_targets"] == 14
    assert all(name.endswith("_proj.weight") for name in adapted)
    config = TailorConfig.parse(
        {"pre": str(base), "sft": [str(path)], "calibration": [str(samples)], "num_samples": 4}
    )
    made = execute("tailor", tailor.run, config, RunConfig(out=str(tmp_path / "t"), quiet=True))
    tensors = json.loads((made / "report.json").read_text())["results"]["tensors"]
    assert tensors["tailored"] == len(moved)
    assert {part_of(name) for name in changed(base, made)} == set(parts)
    suite = suite_factory.text_suite(tmp_path / "suite", number=2)
    if kind != "llama":
        suite = suite_factory.colour_suite(tmp_path / "suite", number=2)
        suite_factory.change(suite, tasks=["tasks/colour-letter.yaml", "tasks/colour-open.yaml"])
    labelled = open_labelled(str(base), [f"ft={path}", f"tailored={made}"])
    with opened(tmp_path / "predictions") as store:
        settings = runs.Settings(store, 4)
        found = dict(runs.run(labelled, read_suite(suite).tasks, settings, Context(quiet=True)))
    assert list(found) == ["base", "ft", "tailored"]
    assert found["base"] != found["ft"]


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_pictures_are_scaled_down_as_the_processors_own_setting_would(
    kind: str, bases: Bases, colours: Path, tmp_path: Path
) -> None:
    base = bases(kind, "saved")
    smaller = shutil.copytree(base, tmp_path / "smaller")
    file = smaller / "preprocessor_config.json"
    values = json.loads(file.read_text())
    values["size"]["longest_edge"] = 512
    file.write_text(json.dumps(values))
    given = {"model": str(base), "samples": str(colours), "steps": 1, "batch": 1}
    job = prepare(FinetuneConfig.parse({**given, "image_max_pixels": 512}), Context(quiet=True))
    samples = list(read_samples(colours))[:2]
    ours, theirs, whole = (
        encoder.train_batch(samples, colours.parent)
        for encoder in (job.encoder, Encoder.load(smaller), Encoder.load(base))
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert ours["input_ids"].shape[1] < whole["input_ids"].shape[1]


@pytest.mark.parametrize(
    ("kind", "most", "message"),
    [
        ("qwen2_vl", 100, "--image-max-pixels 100: the processor scales pictures up to 256"),
        (
            "idefics3",
            512,
            "--image-max-pixels: only qwen2_vl and qwen2_5_vl size pictures by their pixels; leave"
            " it out",
        ),
        (
            "llama",
            512,
            "--image-max-pixels: only qwen2_vl and qwen2_5_vl size pictures by their pixels; leave"
            " it out",
        ),
    ],
)
def test_bound_of_pixels_that_a_processor_does_not_know(
    kind: str, most: int, message: str, bases: Bases, colours: Path
) -> None:
    given = {"model": str(bases(kind, "saved")), "samples": str(colours), "steps": 1, "batch": 1}
    with pytest.raises(ConfigError) as caught:
        prepare(FinetuneConfig.parse({**given, "image_max_pixels": most}), Context(quiet=True))
    assert str(caught.value) == message
