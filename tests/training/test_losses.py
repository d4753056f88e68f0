"""The loss on answers."""

import math
from pathlib import Path

import torch

from mllmtool.data.samples import read_samples
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.loading import load_model
from mllmtool.training.losses import Ledger, learning_places, token_losses


def test_places_are_those_before_a_learnt_token() -> None:
    labels = torch.tensor([[-100, -100, 7, -100], [-100, 5, 6, -100]])
    assert learning_places(labels).tolist() == [0, 1]


def test_token_losses_by_hand() -> None:
    # softmax of (log 1, log 3) is (1/4, 3/4)
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)]]])
    losses = token_losses(logits, torch.tensor([[0, IGNORED]]))
    torch.testing.assert_close(losses, torch.tensor([[math.log(4), 0.0]]))


def test_mean_is_the_models_own_loss(llava: Path, colours: Path) -> None:
    model = load_model(llava)
    batch = Encoder.load(llava).train_batch(list(read_samples(colours))[:4], colours.parent)
    labels = batch["labels"]
    with torch.no_grad():
        theirs = model(**batch).loss
        places = learning_places(labels)
        batch.pop("labels")
        logits = model(**batch, logits_to_keep=places).logits
    assert logits.shape[1] == len(places) == 2
    ours = token_losses(logits, labels[:, places + 1]).sum() / (labels != IGNORED).sum()
    torch.testing.assert_close(ours, theirs)


def test_losses_before_the_last_quarter_count_where_it_is_never_reached() -> None:
    ledger = Ledger(["a"], torch.device("cpu"))
    for step in range(4):
        for _ in range(2):  # micro-batches
            ledger.begin(step, afresh=3)
            ledger.add(torch.tensor([0]), torch.tensor([[float(step)]]), torch.tensor([[7]]))
        loss = {0: 0.0, 1: 0.5, 2: 1.0, 3: 3.0}[step]
        tokens = {0: 2, 1: 4, 2: 6, 3: 2}[step]
        assert ledger.means(ledger.sums) == {"a": {"loss": loss, "tokens": tokens}}


def test_ledger_by_hand() -> None:
    ledger = Ledger(["a", "b", "never"], torch.device("cpu"))
    targets = torch.tensor([[1, IGNORED], [1, 2], [3, IGNORED], [4, 5]])
    losses = torch.tensor([[1.0, 0.0], [2.0, 4.0], [8.0, 0.0], [16.0, 32.0]])
    ledger.add(torch.tensor([0, 1, 0, -1]), losses, targets)
    ledger.add(torch.tensor([1, 1, 1, 1]), torch.zeros(4, 2), torch.full((4, 2), IGNORED))
    # a: (1 + 8) over 2 tokens; b: (2 + 4) over 2; the row of no source is nobody's
    assert ledger.means(ledger.sums) == {
        "a": {"loss": 4.5, "tokens": 2},
        "b": {"loss": 3.0, "tokens": 2},
        "never": {"loss": None, "tokens": 0},
    }
