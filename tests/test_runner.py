"""One directory, by one rename, whole or not at all."""

import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from mllmtool.configs.base import Config, RunConfig
from mllmtool.context import Context
from mllmtool.errors import ConfigError, InputError, NumericError, OutputError
from mllmtool.reports import Artifact, read_report
from mllmtool.runner import Made, execute


class ToyConfig(Config):
    """Write a text."""

    text: Annotated[str, Field(description="what to write")] = "hello"


def toy(config: ToyConfig, context: Context, into: Path) -> Made:
    (into / "made.txt").write_text(config.text)
    context.warn("a warning")
    return Made(inputs=[], results={"drawn": context.rng("toy").random()}, run={"seconds_toy": 1})


def interrupted(config: ToyConfig, context: Context, into: Path) -> Made:
    toy(config, context, into)
    raise KeyboardInterrupt


def infinite(config: ToyConfig, context: Context, into: Path) -> Made:
    made = toy(config, context, into)
    return Made(inputs=[], results={"x": float("inf")}, run=made.run)


def test_a_run_makes_one_whole_directory(tmp_path: Path) -> None:
    out = execute("toy", toy, ToyConfig(), RunConfig(out=str(tmp_path / "a" / "out"), seed=3))
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]
    report = read_report(out / "report.json")
    assert [(o.path, len(o.sha256)) for o in report.outputs] == [("made.txt", 64)]
    assert report.warnings == ["a warning"]
    assert report.seed == 3
    assert report.run["seconds_toy"] == 1


def test_equal_runs_differ_in_nothing_but_run(tmp_path: Path) -> None:
    reports = []
    for name in ("one", "two"):
        out = execute("toy", toy, ToyConfig(), RunConfig(out=str(tmp_path / name), seed=7))
        values = json.loads((out / "report.json").read_text())
        del values["run"]
        reports.append(values)
    assert reports[0] == reports[1]


@pytest.mark.parametrize("command", [interrupted, infinite])
def test_a_failed_run_leaves_nothing(tmp_path: Path, command: object) -> None:
    with pytest.raises((KeyboardInterrupt, NumericError)):
        execute("toy", command, ToyConfig(), RunConfig(out=str(tmp_path / "out")))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutputError) as caught:
        execute("toy", toy, ToyConfig(), RunConfig(out=str(out)))
    assert str(caught.value) == (
        f"{out}: exists; choose another --out, or replace it with --overwrite"
    )


def test_overwrite_replaces_only_outputs_of_mllmtool(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(OutputError) as caught:
        execute("toy", toy, ToyConfig(), RunConfig(out=str(out), overwrite=True))
    assert str(caught.value) == (
        f"{out}: is not an output of mllmtool (no report.json); remove it first"
    )
    assert (out / "precious").read_text() == "x"


def test_overwrite_keeps_the_old_output_when_the_new_one_fails(tmp_path: Path) -> None:
    run = RunConfig(out=str(tmp_path / "out"), overwrite=True)
    out = execute("toy", toy, ToyConfig(), run)
    with pytest.raises(KeyboardInterrupt):
        execute("toy", interrupted, ToyConfig(text="new"), run)
    assert (out / "made.txt").read_text() == "hello"
    execute("toy", toy, ToyConfig(text="new"), run)
    assert (out / "made.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_no_output_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^--out: is required$"):
        execute("toy", toy, ToyConfig(), RunConfig())


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    with pytest.raises(OutputError, match="cannot be written"):
        execute("toy", toy, ToyConfig(), RunConfig(out=str(out)))


def test_a_file_that_vanishes_is_a_failure_to_read(tmp_path: Path) -> None:
    def reading(config: ToyConfig, context: Context, into: Path) -> Made:
        (into / "made.txt").write_text((tmp_path / "gone").read_text())
        raise AssertionError(config, context)

    with pytest.raises(InputError) as caught:
        execute("toy", reading, ToyConfig(), RunConfig(out=str(tmp_path / "out")))
    assert str(caught.value) == f"{tmp_path}/gone: cannot be read: No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_also_read_is_refused(tmp_path: Path) -> None:
    out = execute("toy", toy, ToyConfig(), RunConfig(out=str(tmp_path / "out")))
    for text in (str(out), f"label={out}", f"a={out / 'made.txt'}"):
        with pytest.raises(OutputError) as caught:
            execute("toy", toy, ToyConfig(text=text), RunConfig(out=str(out), overwrite=True))
        assert str(caught.value) == f"{out}: is read by this command too; choose another --out"
    assert (out / "made.txt").read_text() == "hello"


def test_a_failed_run_leaves_no_folder_on_the_way(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute("toy", interrupted, ToyConfig(), RunConfig(out=str(tmp_path / "a" / "b" / "out")))
    assert list(tmp_path.iterdir()) == []


def test_an_output_whose_name_has_a_sign_is_refused_too(tmp_path: Path) -> None:
    out = execute("toy", toy, ToyConfig(), RunConfig(out=str(tmp_path / "lr=0.1")))
    with pytest.raises(OutputError, match="is read by this command too"):
        execute("toy", toy, ToyConfig(text=str(out)), RunConfig(out=str(out), overwrite=True))


def test_an_output_found_to_be_read_on_the_way_is_refused(tmp_path: Path) -> None:
    def reads_its_output(config: ToyConfig, context: Context, into: Path) -> Made:
        made = toy(config, context, into)
        return Made([Artifact(role="x", path=str(out / "made.txt"), sha256="")], {}, made.run)

    run = RunConfig(out=str(tmp_path / "out"), overwrite=True)
    out = execute("toy", toy, ToyConfig(), run)
    with pytest.raises(OutputError, match="is read by this command too"):
        execute("toy", reads_its_output, ToyConfig(text="new"), run)
    assert (out / "made.txt").read_text() == "hello"
