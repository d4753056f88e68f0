"""Many checkpoints with one model: the same as each alone."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import factories
import pytest
import torch
from safetensors.torch import load_file, save_file
from suite_factory import change_line, colour_suite
from transformers import LlavaForConditionalGeneration

from mllmtool.checkpoints import Checkpoint
from mllmtool.context import Context
from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation import checking, runs
from mllmtool.evaluation.labelled import Labelled, describe
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.runs import Settings, run
from mllmtool.evaluation.store import opened
from mllmtool.models.loading import load_model

Found = dict[str, dict[str, list[Prediction]]]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(colour_suite(tmp_path_factory.mktemp("suite"), number=4)).tasks


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.tiny_llava(tmp_path_factory.mktemp("other") / "tuned", seed=1)


def change_json(path: Path, **keys: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def run_all(
    tasks: tuple[Task, ...], kept: Path | None = None, **paths: Path
) -> tuple[Found, list[str]]:
    context = Context(quiet=True)
    labelled = [Labelled(label, Checkpoint.open(path)) for label, path in paths.items()]
    with TemporaryDirectory() as folder, opened(kept or Path(folder) / "kept") as store:
        return dict(run(labelled, tasks, Settings(store, 8), context)), context.warnings


def num_kept(kept: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in kept.glob("*.jsonl"))


def test_swapped_weights_are_those_of_the_checkpoint(
    tasks: tuple[Task, ...], llava: Path, other: Path
) -> None:
    together, warnings = run_all(tasks, base=llava, tuned=other, again=llava)
    alone, _ = run_all(tasks, tuned=other)
    assert together["tuned"] == alone["tuned"]
    assert together["again"] == together["base"]
    assert together["base"] != together["tuned"]
    assert warnings == []


def test_another_computation_is_built_anew(
    tasks: tuple[Task, ...], llava: Path, tmp_path: Path
) -> None:
    """The same weights, but features of another layer."""
    changed = Path(shutil.copytree(llava, tmp_path / "changed"))
    change_json(changed / "config.json", vision_feature_layer=-2)
    together, _ = run_all(tasks, base=llava, changed=changed, again=llava)
    alone, _ = run_all(tasks, changed=changed)
    assert together["changed"] == alone["changed"]
    assert together["changed"] != together["base"]
    assert together["again"] == together["base"]


def test_another_template_is_used_and_told(
    tasks: tuple[Task, ...], llava: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(llava, tmp_path / "changed"))
    template = changed / "chat_template.jinja"
    template.write_text(template.read_text().replace(": ", " - "))
    together, warnings = run_all(tasks, base=llava, changed=changed)
    assert together["changed"] != together["base"]
    assert warnings == [
        "changed: its tokenizer or processor is not the base's; it is evaluated with its own"
    ]


def test_predictions_are_known_by_contents_alone(llava: Path, tmp_path: Path) -> None:
    suite, kept = colour_suite(tmp_path / "suite", number=4), tmp_path / "kept"
    whole, _ = run_all(read_suite(suite).tasks, kept, base=llava)
    assert num_kept(kept) == 16
    moved = shutil.copytree(llava, tmp_path / "moved")  # other paths, another label, shards
    model = LlavaForConditionalGeneration.from_pretrained(llava)
    model.save_pretrained(moved, max_shard_size="100KB")
    (moved / "model.safetensors").unlink()
    others = read_suite(shutil.copytree(suite.parent, tmp_path / "other") / suite.name).tasks
    again, _ = run_all(others, kept, moved=moved)
    assert again["moved"] == whole["base"]
    assert num_kept(kept) == 16
    picture = suite.parent / "images/5.png"  # one of another task alone
    picture.write_bytes(picture.read_bytes() + b" ")
    assert run_all(read_suite(suite).tasks, kept, base=llava)[0] == whole
    assert num_kept(kept) == 17
    change_line(suite.parent / "tasks/sums.jsonl", 2, question="What is one plus two !")
    run_all(read_suite(suite).tasks, kept, base=llava)
    assert num_kept(kept) == 18
    path = tmp_path / "flipped"
    flipped = load_file(shutil.copytree(llava, path) / "model.safetensors")
    next(iter(flipped.values())).view(-1)[0] += 1e-3
    save_file(flipped, path / "model.safetensors", metadata={"format": "pt"})
    run_all(read_suite(suite).tasks, kept, base=path)
    assert num_kept(kept) == 18 + 16
    with opened(kept) as store:
        settings = Settings(store, 8, dtype=torch.bfloat16)
        tasks, labelled = read_suite(suite).tasks, [Labelled("half", Checkpoint.open(path))]
        [(_, half)] = run(labelled, tasks, settings, Context(quiet=True))
    assert num_kept(kept) == 18 + 16 + 16
    assert {one.read for predictions in half.values() for one in predictions} == {"shared"}


def test_the_fast_way_is_left_where_it_differs(
    tasks: tuple[Task, ...], llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, warnings = run_all(tasks, base=llava)
    assert warnings == []
    monkeypatch.setitem(checking.TOLERANCES, torch.float32, -1.0)
    whole, warnings = run_all(tasks, base=llava)
    assert warnings == [
        "base: 16 predictions are of whole forward passes, as reading once what prompts share did"
        " not give the same"
    ]
    for task, predictions in whole["base"].items():
        for one, other in zip(predictions, fast["base"][task], strict=True):
            assert (one.read, other.read) == ("whole", "shared")
            assert one.response == other.response
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_where_memory_is_short_the_batch_is_halved(
    tasks: tuple[Task, ...],
    llava: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    expected, _ = run_all(tasks, base=llava)
    limit = 3

    def refuse(_: Any, __: Any, given: dict[str, Any]) -> None:
        if len(given["input_ids"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def short(path: Path, dtype: torch.dtype) -> Any:
        model: Any = load_model(path, dtype)
        model.register_forward_pre_hook(refuse, with_kwargs=True)
        return model

    monkeypatch.setattr(runs, "load_model", short)
    with opened(tmp_path / "kept") as store:
        settings, labelled = Settings(store, 8), [Labelled("base", Checkpoint.open(llava))]
        found = dict(run(labelled, tasks, settings, Context(quiet=True)))
    assert settings.halved == [4, 2]
    assert caplog.messages == [
        "out of memory with 8 prompts a batch; going on with 4",
        "out of memory with 4 prompts a batch; going on with 2",
    ]
    for task, predictions in found["base"].items():
        for one, other in zip(predictions, expected["base"][task], strict=True):
            assert one.response == other.response
            assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)
    limit = 0
    with pytest.raises(DataError) as caught:
        run_all(tasks, base=llava)
    assert str(caught.value) == "--batch: memory does not hold a single prompt"


def test_what_counts_as_a_copy_of_the_base(llava: Path, other: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(llava, tmp_path / "copy"))
    change_json(copy / "config.json", _name_or_path="elsewhere", transformers_version="0")
    (copy / "preprocessor_config.json").write_text("{}")  # beside a nested one, it is not read
    deeper = Path(shutil.copytree(llava, tmp_path / "deeper"))
    change_json(deeper / "config.json", vision_feature_layer=-2)
    template = Path(shutil.copytree(llava, tmp_path / "template"))
    (template / "chat_template.jinja").write_text("{{ messages }}")
    further = Path(shutil.copytree(llava, tmp_path / "further"))
    (further / "qformer_tokenizer").mkdir()
    (further / "qformer_tokenizer" / "vocab.txt").write_text("a")
    paths = {"base": llava, "copy": copy, "deeper": deeper, "template": template, "other": other}
    paths["further"] = further
    rows = describe([Labelled(label, Checkpoint.open(path)) for label, path in paths.items()])
    assert [row.same_as_base for row in rows] == [True, True, False, False, False, False]
    assert len({row.fingerprint for row in rows}) == 2


def test_images_are_known_by_their_bytes(tasks: tuple[Task, ...]) -> None:
    seen, unseen, opened, sums = (task.image_digests for task in tasks)
    assert seen == opened
    assert len({*seen, *unseen}) == 8
    assert sums == ("sums/sums-0", "sums/sums-1", "sums/sums-2", "sums/sums-3")
