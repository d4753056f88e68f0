"""Recorded moments against what the modules of tiny real models put out."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from streaming import streamed
from torch import Tensor, nn

from mllmtool.checkpoints import Checkpoint
from mllmtool.data.samples import read_samples
from mllmtool.errors import InputError, NumericError
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import load_model
from mllmtool.models.skeleton import Skeleton
from mllmtool.tailoring.learning import check_convolution, learn
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site, find_sites


class Watched:
    """A model, its sites, their moments on a file of samples, and its modules' outputs there."""

    def __init__(self, path: Path, samples: Path, size: int, tuned: Sequence[str] = ()) -> None:
        model, skeleton = load_model(path), Skeleton(Checkpoint.open(path))
        chosen = frozenset(tuned or skeleton.checkpoint.names)
        learned = learn(skeleton, chosen, lambda *_: "tailor")
        self.sites = learned.sites
        self.paths = {module: name for name, module in skeleton.model.named_modules()}
        self.model = model
        self.outputs: dict[str, list[Tensor]] = {}
        encoder, rows = Encoder.load(path), list(read_samples(samples))
        self.batches = [
            encoder.train_batch(rows[start : start + size], samples.parent)
            for start in range(0, len(rows), size)
        ]
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                module.register_forward_hook(partial(self._keep, name))
        with torch.no_grad():
            for batch in self.batches:
                model(**{key: value for key, value in batch.items() if key != "labels"})
        self.moments = streamed(learned, self.batches)

    def _keep(self, name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            self.outputs.setdefault(name, []).append(output.detach())

    def weights(self, site: Site) -> Tensor:
        """The live tensors of a site side by side."""
        use = site.uses[0]
        names = ("weight", "bias") if len(site.names) == 2 else (use.parameter,)
        module = self.model.get_submodule(self.paths[use.module])
        tensors = [getattr(module, name).detach().double() for name in names]
        rows = len(tensors[0]) if site.has_rows else 1
        return torch.cat([tensor.reshape(rows, -1) for tensor in tensors], dim=1)

    def site(self, end: str) -> Site:
        """The one site whose first tensor's name ends so."""
        (site,) = [site for site in self.sites if site.names[0].endswith(end)]
        return site

    def moment(self, end: str) -> Moment:
        """Its moment."""
        return self.moments[self.site(end).names[0]]

    def output_energy(self, module: nn.Module, masked: bool, channels: int = -1) -> Tensor:
        """Mean square of a module's output over tokens, summed over channels; padding left out."""
        squares, tokens = torch.zeros((), dtype=torch.float64), 0
        for output, batch in zip(self.outputs[self.paths[module]], self.batches, strict=True):
            rows = output.movedim(channels, -1).reshape(-1, output.shape[channels]).double()
            rows = rows[batch["attention_mask"].reshape(-1).bool()] if masked else rows
            squares, tokens = squares + rows.square().sum(), tokens + len(rows)
        return squares / tokens


@pytest.fixture(scope="module")
def seen(llava: Path, colours: Path) -> Watched:
    """The LLaVA, five samples at a time."""
    return Watched(llava, colours, 5)


@pytest.fixture(scope="module")
def read(llama: Path, sums: Path) -> Watched:
    """The Llama with its tied head, three samples at a time."""
    return Watched(llama, sums, 3)


def test_every_parameter_has_one_site(seen: Watched, llava: Path) -> None:
    names = [name for site in seen.sites for name in site.names]
    assert sorted(names) == sorted(Checkpoint.open(llava).names)


def test_the_moment_of_a_map_measures_its_output(seen: Watched) -> None:
    checked = set()
    for site in seen.sites:
        use = site.uses[0]
        if use.kind not in ("linear", "convolution", "lookup") or "position" in site.names[0]:
            continue
        channels = 1 if use.kind == "convolution" else -1
        expected = seen.output_energy(use.module, use.part == "language", channels)
        found = seen.moments[site.names[0]].energy(seen.weights(site))
        assert found == pytest.approx(expected.item(), rel=1e-4), site.names[0]
        checked.add((use.kind, use.part, len(site.names)))
    assert checked == {
        ("linear", "language", 1),
        ("linear", "vision", 2),
        ("linear", "projector", 2),
        ("convolution", "vision", 1),
        ("lookup", "language", 1),
    }


def test_a_norm_is_measured_by_what_it_multiplies(seen: Watched) -> None:
    # without a bias the output is the weight times its input, as a map of one row
    site = seen.site("layers.1.input_layernorm.weight")
    expected = seen.output_energy(site.uses[0].module, masked=True)
    assert seen.moments[site.names[0]].energy(seen.weights(site)) == pytest.approx(
        expected.item(), 1e-4
    )
    # standardised inputs: mean square 1 a channel, on average over the channels
    layer_norm = seen.moment("vision_tower.post_layernorm.weight")
    assert layer_norm.diagonal.shape == (1, 32)
    assert layer_norm.diagonal.mean().item() == pytest.approx(1, rel=1e-3)
    bias = seen.moment("vision_tower.post_layernorm.bias")
    assert bias.diagonal.flatten().tolist() == [1.0] * 32


def test_constants_and_positions(seen: Watched) -> None:
    token = seen.moment("class_embedding")
    assert (token.diagonal.item(), token.full) == (1.0, None)
    places = seen.moment("position_embedding.weight")
    assert places.diagonal.flatten().tolist() == pytest.approx([1 / 17] * 17)


def test_padding_does_not_count(llava: Path, colours: Path, seen: Watched) -> None:
    alone = Watched(llava, colours, 1)
    lengths = [int(batch["attention_mask"].sum()) for batch in alone.batches]
    assert seen.moment("layers.0.mlp.up_proj.weight").tokens == sum(lengths)
    for name, moment in alone.moments.items():
        for ours, theirs in zip(
            (seen.moments[name].diagonal, seen.moments[name].full),
            (moment.diagonal, moment.full),
            strict=True,
        ):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5), name


def test_a_tied_tensor_sums_relative_errors(read: Watched) -> None:
    (site,) = [site for site in read.sites if len(site.uses) == 2]
    moment, weight = read.moments[site.names[0]], read.weights(site)
    assert {use.kind for use in site.uses} == {"lookup", "linear"}
    # each use's output is measured relative to its own mean square, so each adds 1
    assert moment.energy(weight) == pytest.approx(2.0)
    assert Moment(moment.diagonal).energy(weight) == pytest.approx(1.0)
    counts = torch.zeros(len(weight))
    for batch in read.batches:
        ids = batch["input_ids"][batch["attention_mask"].bool()]
        counts += torch.bincount(ids, minlength=len(weight))
    assert torch.allclose(
        moment.diagonal.flatten() / moment.diagonal.sum(), counts.double() / counts.sum()
    )


def test_a_bias_alone_is_a_constant(llava: Path, colours: Path) -> None:
    only = Watched(llava, colours, 12, ["multi_modal_projector.linear_1.bias"])
    (site,) = only.sites
    assert (site.names, site.uses[0].kind) == (("multi_modal_projector.linear_1.bias",), "constant")
    assert only.moments[site.names[0]].diagonal.item() == 1.0


def test_what_no_pass_reaches_has_no_tokens(llava: Path, sums: Path) -> None:
    unseen = Watched(llava, sums, 8)
    moment = unseen.moment("vision_tower.post_layernorm.weight")
    assert (moment.tokens, moment.diagonal.tolist()) == (0, [[0.0]])
    assert unseen.moment("lm_head.weight").tokens > 0


def test_a_broken_activation_names_its_tensor(tmp_path: Path, llava: Path, colours: Path) -> None:
    shutil.copytree(llava, tmp_path / "ft")
    tensors = load_file(llava / "model.safetensors")
    tensors["multi_modal_projector.linear_1.weight"] *= 1e38
    save_file(tensors, tmp_path / "ft" / "model.safetensors", metadata={"format": "pt"})
    skeleton = Skeleton(Checkpoint.open(tmp_path / "ft"))
    last = frozenset(["multi_modal_projector.linear_2.weight"])
    learned = learn(skeleton, last, lambda *_: "tailor")
    batch = Encoder.load(llava).train_batch(list(read_samples(colours)), colours.parent)
    with pytest.raises(NumericError) as raised:
        streamed(learned, [batch])
    assert str(raised.value) == (
        "multi_modal_projector.linear_2.weight: its input is NaN or Inf on these samples"
    )


def test_an_odd_convolution_is_refused() -> None:
    odd = nn.Sequential(nn.Conv2d(3, 4, 2, padding=1))
    names = {"0.weight": "w", "0.bias": "b"}
    (site,) = find_sites(odd, names, dict.fromkeys(names, "vision"), frozenset({"w"}))
    with pytest.raises(InputError) as raised:
        check_convolution(site)
    assert str(raised.value) == (
        "w: a convolution with padding, dilation or groups cannot be tailored; pass --others pre or"
        " --others sft"
    )
