"""Models run unit by unit against the same models whole."""

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import factories
import families
import pytest
import torch
from safetensors.torch import load_file, save_file
from streaming import Whole, streamed
from torch import Tensor

from mllmtool.checkpoints import Checkpoint
from mllmtool.data.samples import Sample, read_samples
from mllmtool.models.encoding import Encoder
from mllmtool.models.skeleton import Skeleton
from mllmtool.tailoring import capture, passes
from mllmtool.tailoring.learning import Learned, learn
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.stream import Place, Stream, steps

FAMILIES = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "instructblip", "idefics3", "llama")
QUESTIONS = ("What colour?", "What is the colour of the picture?", "Say what you see.", "Colour")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples whose questions, answers and pictures differ in size."""
    return factories.colour_samples(tmp_path_factory.mktemp("sizes"), number=5).parent


def samples_of(family: str, folder: Path) -> list[Sample]:
    """Samples of several lengths; without pictures for a text model."""
    samples = list(read_samples(folder / "samples.jsonl"))
    answers = ("red", "it is green and not blue", "so", "zero one two three", "a")
    some = []
    for number, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        question = QUESTIONS[number % len(QUESTIONS)]
        image = "" if family == "llama" else "<image>"
        turns = factories.turns(f"{image}{question}", answer)
        images = [] if family == "llama" else list(sample.images)
        some.append(Sample.model_validate({"id": str(number), "images": images, "messages": turns}))
    return some


def tuned(path: Path, into: Path) -> Path:
    """A copy with noise on every tensor, so that no bias is 0."""
    shutil.copytree(path, into)
    rng = torch.Generator().manual_seed(5)
    noisy = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=rng)
        for name, tensor in load_file(path / "model.safetensors").items()
    }
    save_file(noisy, into / "model.safetensors", metadata={"format": "pt"})
    return into


def learned_of(path: Path) -> Learned:
    """All of it is to be tailored."""
    skeleton = Skeleton(Checkpoint.open(path))
    return learn(skeleton, frozenset(skeleton.checkpoint.names), lambda *_: "tailor")


def batches_of(
    path: Path, samples: Sequence[Sample], folder: Path, size: int
) -> list[dict[str, Tensor]]:
    encoder = Encoder.load(path)
    starts = range(0, len(samples), size)
    return [encoder.train_batch(samples[start : start + size], folder) for start in starts]


def same(moment: Moment, whole: Whole, learned: Learned, lead: str) -> None:
    """The moment is the slow transcription's."""
    (use,) = next(site for site in learned.sites if site.names[0] == lead).uses
    expected = whole.mean(use)
    ours = moment.diagonal.flatten() if moment.full is None else moment.full
    assert moment.tokens == whole.tokens[use], lead
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-5 * float(expected.max())), lead


def equal(one: Moment, other: Moment) -> bool:
    """To the last bit."""
    pairs = ((one.diagonal, other.diagonal), (one.full, other.full))
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A family and its tiny checkpoint, tuned everywhere."""
    root = tmp_path_factory.mktemp(request.param)
    return request.param, tuned(families.CHECKPOINTS[request.param](root / "base"), root / "ft")


def test_unit_by_unit_is_the_whole_model(family: tuple[str, Path], folder: Path) -> None:
    """In padded batches, against samples one at a time: every site drops its own padding."""
    name, path = family
    samples = samples_of(name, folder)
    learned = learned_of(path)
    moments = streamed(learned, batches_of(path, samples, folder, 3))
    whole = Whole(path, learned, batches_of(path, samples, folder, 1))
    assert moments.keys() == {site.names[0] for site in learned.sites}
    for site in learned.sites:
        lead = site.names[0]
        by_batch = site.uses[0].kind == "constant" or "vision_tower.embeddings.position" in lead
        if len(site.uses) == 1 and not by_batch:
            same(moments[lead], whole, learned, lead)


def test_gram_matrices_a_few_rows_at_a_time(
    llava: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = learned_of(llava)
    batches = batches_of(llava, samples_of("llava", folder), folder, 3)
    whole = streamed(learned, batches)
    monkeypatch.setattr(capture, "ROWS", 7)
    parts = streamed(learned_of(llava), batches)
    for lead, moment in parts.items():
        if moment.full is not None:
            expected = whole[lead].full
            assert torch.equal(moment.full, moment.full.T)
            assert expected is not None
            assert torch.allclose(moment.full, expected, rtol=1e-5, atol=1e-6), lead


def test_cached_on_disk_it_is_the_same(
    family: tuple[str, Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = family
    batches = batches_of(path, samples_of(name, folder), folder, 3)
    plain = streamed(learned_of(path), batches)
    monkeypatch.setattr(passes, "PARKED_BYTES", 1)
    parked = streamed(learned_of(path), batches, place=Place(folder=tmp_path))
    for lead, moment in plain.items():
        assert equal(moment, parked[lead]), lead
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unit", ["model.layers.1", "lm_head"])
def test_later_units_see_what_was_made_of_those_before(
    unit: str, llama: Path, folder: Path, tmp_path: Path
) -> None:
    """Blocks go back to the base one by one, and each is recorded behind those that went."""
    path = tuned(llama, tmp_path / "ft")
    base, batches = Checkpoint.open(llama), batches_of(path, samples_of("llama", folder), folder, 5)
    learned = learned_of(path)
    moments: dict[str, Moment] = {}
    for step in steps([Stream(learned, base, [batches, ()], Place())], follow=True):
        moments |= {lead: found.task for lead, found in step.maps[0].items()}
        step.finals = [{n: base[n] for found in step.maps[0].values() for n in found.names}]
    # the model that this unit saw: all before it is the base's, but the tied embedding, whose last
    # use is the head
    shutil.copytree(path, tmp_path / "seen")
    mixed = load_file(path / "model.safetensors")
    before = [n for n in mixed if "layers" in n and (unit == "lm_head" or "layers.0" in n)]
    mixed |= {n: base[n] for n in before + ["model.norm.weight"] * (unit == "lm_head")}
    save_file(mixed, tmp_path / "seen" / "model.safetensors", metadata={"format": "pt"})
    expected = streamed(learned_of(tmp_path / "seen"), batches)
    for site in learned.sites:
        if any(use.unit == unit for use in site.uses):
            lead = site.names[0]
            assert moments[lead].tokens == expected[lead].tokens
            assert equal(moments[lead], expected[lead])


@pytest.mark.parametrize("layer", [-2, 1, [0, -1]])
def test_hidden_states_of_a_tower_that_are_read_stay(
    layer: int | list[int], llava: Path, folder: Path, tmp_path: Path
) -> None:
    path = tuned(llava, tmp_path / "ft")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "vision_feature_layer": layer}))
    if isinstance(layer, list):  # features side by side: the projector is as much wider
        tensors = load_file(path / "model.safetensors")
        name = "multi_modal_projector.linear_1.weight"
        tensors[name] = torch.cat([tensors[name]] * 2, dim=1)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    batches = batches_of(path, samples_of("llava", folder), folder, 5)
    learned = learned_of(path)
    moments, whole = streamed(learned, batches), Whole(path, learned, batches)
    name = "multi_modal_projector.linear_1.weight"
    same(moments[name], whole, learned, name)


def test_a_pass_without_a_picture_waits_for_the_others(llava: Path, folder: Path) -> None:
    mixed = [*samples_of("llava", folder)[:2], *samples_of("llama", folder)[:2]]
    learned = learned_of(llava)
    alone = batches_of(llava, mixed, folder, 1)
    moments = streamed(learned, alone)
    whole = Whole(llava, learned, alone)
    for site in learned.sites:
        if site.uses[0].kind == "linear":
            same(moments[site.names[0]], whole, learned, site.names[0])


def test_a_failure_in_a_pass_comes_out(llava: Path, folder: Path) -> None:
    (batch,) = batches_of(llava, samples_of("llava", folder), folder, 5)
    del batch["pixel_values"]
    running = threading.active_count()
    with pytest.raises(ValueError, match="do not match"):
        streamed(learned_of(llava), [{**batch, "pixel_values": torch.zeros(1, 3, 32, 32)}])
    assert threading.active_count() == running
