"""Recorded moments against what the modules of tiny real models put out."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mllmtool.checkpoints import Checkpoint
from mllmtool.data.samples import read_samples
from mllmtool.errors import InputError, NumericError
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import partition
from mllmtool.tailoring.capture import Recorder, record_moments
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site, find_sites


class Watched:
    """A model, its sites, its moments on a file of samples, and its modules' outputs there."""

    def __init__(self, path: Path, samples: Path, size: int, tuned: Sequence[str] = ()) -> None:
        self.model, checkpoint = load_model(path), Checkpoint.open(path)
        names = disk_names(self.model, checkpoint)
        chosen = frozenset(tuned or checkpoint.names)
        self.sites = find_sites(self.model, names, partition(self.model), chosen)
        self.outputs: dict[nn.Module, list[Tensor]] = {}
        encoder, rows = Encoder.load(path), list(read_samples(samples))
        self.batches = [
            encoder.train_batch(rows[start : start + size], samples.parent)
            for start in range(0, len(rows), size)
        ]
        for module in self.model.modules():
            if next(module.children(), None) is None:
                module.register_forward_hook(self._keep)
        self.moments = record_moments(self.model, self.sites, self.batches)

    def _keep(self, module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            self.outputs.setdefault(module, []).append(output.detach())

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
        for output, batch in zip(self.outputs[module], self.batches, strict=True):
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


def columns(site: Site) -> Tensor:
    """The live tensors of a site side by side."""
    use = site.uses[0]
    names = ("weight", "bias") if len(site.names) == 2 else (use.parameter,)
    tensors = [getattr(use.module, name).detach().double() for name in names]
    rows = len(tensors[0]) if site.has_rows else 1
    return torch.cat([tensor.reshape(rows, -1) for tensor in tensors], dim=1)


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
        found = seen.moments[site.names[0]].energy(columns(site))
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
    assert seen.moments[site.names[0]].energy(columns(site)) == pytest.approx(expected.item(), 1e-4)
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
    moment, weight = read.moments[site.names[0]], columns(site)
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


def test_a_broken_activation_names_its_tensor(llava: Path, colours: Path) -> None:
    watched = Watched(llava, colours, 12, ["multi_modal_projector.linear_2.weight"])
    first = watched.model.get_parameter("model.multi_modal_projector.linear_1.weight")
    first.data[0, 0] = float("nan")
    with pytest.raises(NumericError) as raised:
        record_moments(watched.model, watched.sites, watched.batches)
    assert str(raised.value) == (
        "multi_modal_projector.linear_2.weight: its input is NaN or Inf on these samples"
    )


def test_an_odd_convolution_is_refused() -> None:
    odd = nn.Sequential(nn.Conv2d(3, 4, 2, padding=1))
    names = {"0.weight": "w", "0.bias": "b"}
    (site,) = find_sites(odd, names, dict.fromkeys(names, "vision"), frozenset({"w"}))
    recorder = Recorder(site.uses)
    with recorder.watching(), pytest.raises(InputError) as raised:
        odd(torch.ones(1, 3, 4, 4))
    assert str(raised.value) == (
        "Conv2d: a convolution with padding, dilation or groups cannot be tailored; pass"
        " --others pre or --others sft"
    )
