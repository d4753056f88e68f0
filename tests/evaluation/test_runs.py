"""Many checkpoints with one model: the same as each alone."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import factories
import pytest
from suite_factory import colour_suite

from mllmtool.checkpoints import Checkpoint
from mllmtool.context import Context
from mllmtool.data.suites import Task, read_suite
from mllmtool.evaluation.labelled import Labelled, describe
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.runs import Settings, image_digests, run
from mllmtool.evaluation.store import opened

Found = dict[str, dict[str, list[Prediction]]]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(colour_suite(tmp_path_factory.mktemp("suite"), number=4)).tasks


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.tiny_llava(tmp_path_factory.mktemp("other") / "tuned", seed=1)


def change_json(path: Path, **keys: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def run_all(tasks: tuple[Task, ...], **paths: Path) -> tuple[Found, list[str]]:
    context = Context(quiet=True)
    labelled = [Labelled(label, Checkpoint.open(path)) for label, path in paths.items()]
    with TemporaryDirectory() as folder, opened(Path(folder) / "predictions") as store:
        return dict(run(labelled, tasks, Settings(store, 8), context)), context.warnings


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
    seen, unseen, opened, sums = map(image_digests, tasks)
    assert seen == opened
    assert len({*seen, *unseen}) == 8
    assert sums == ("sums/sums-0", "sums/sums-1", "sums/sums-2", "sums/sums-3")
