"""Run a command into one directory that appears by one rename once it is whole."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mllmtool import __version__
from mllmtool.configs.base import Config, RunConfig
from mllmtool.context import Context, is_main_process
from mllmtool.errors import ConfigError, InputError, MllmtoolError, OutputError
from mllmtool.reports import Artifact, Report, file_sha256, write_report
from mllmtool.reports.report import REPORT_NAME

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Made:
    """What a command hands back: what it read, and its findings for `results`.

    `run` holds what may differ between two runs of one recipe: seconds, memory, device. `hashes`
    are of files in the output that need not be read again.
    """

    inputs: list[Artifact]
    results: dict[str, Any]
    run: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)


class Shown(NamedTuple):
    """What a command that prints hands back when its exit status is not always 0."""

    text: str
    status: int


def execute(
    name: str, command: Callable[[C, Context, Path], Made], config: C, run: RunConfig
) -> Path:
    """Run `command` and return the directory that it made.

    Under `torchrun` every process runs the command and the main one alone keeps what it made.

    Raises:
        ConfigError: no output directory is given and none can be derived.
        OutputError: the output exists, or cannot be written.
    """
    out = output_path(config, run)
    hidden = out.with_name(f".{out.name}.{os.getpid()}")
    work = out.with_name(f".{out.name}.work")
    context = Context(seed=run.seed, quiet=run.quiet or not is_main_process(), work=work)
    started, clock = datetime.now(UTC), time.monotonic()
    new_parents = [parent for parent in out.parents if not parent.exists()]
    try:
        hidden.mkdir(parents=True)
        made = command(config, context, hidden)
        if not is_main_process():
            return out
        when = {
            "out": str(out),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "python": platform.python_version(),
            "host": platform.node(),
        }
        write_report(
            _report(name, config, context, hidden, replace(made, run=when | made.run)), hidden
        )
        if out.exists():
            _check_not_read(out, (made_from.path for made_from in made.inputs))
        _replace(out, hidden)
    except OSError as error:
        raise _of_disk(error, out, (hidden, work)) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        _remove_empty([work, *new_parents])
    shutil.rmtree(work, ignore_errors=True)
    return out


def _report(name: str, config: Config, context: Context, hidden: Path, made: Made) -> Report:
    return Report(
        command=name,
        version=__version__,
        seed=context.seed,
        config=config.model_dump(mode="json"),
        inputs=made.inputs,
        outputs=[
            Artifact(role="output", path=name, sha256=made.hashes.get(name) or file_sha256(path))
            for path in sorted(hidden.rglob("*"))
            if path.is_file() and (name := str(path.relative_to(hidden)))
        ],
        results=made.results,
        warnings=context.warnings,
        run=made.run,
    )


def output_path(config: Config, run: RunConfig) -> Path:
    """The output directory, refused when it exists and may not be replaced."""
    name = run.out or config.default_out()
    if name is None:
        raise ConfigError("--out: is required")
    out = Path(os.path.abspath(name))  # noqa: PTH100 (resolve() would follow a link at `out`)
    if not is_main_process() or not os.path.lexists(out):
        return out
    if not run.overwrite:
        raise OutputError(f"{out}: exists; choose another --out, or replace it with --overwrite")
    if not (out / REPORT_NAME).is_file() or out.is_symlink():
        raise OutputError(f"{out}: is not an output of mllmtool (no report.json); remove it first")
    _check_not_read(out, _texts(config.model_dump(mode="json")))
    return out


def _check_not_read(out: Path, texts: Iterable[str]) -> None:
    if any(_is_within(text, out) for text in texts):
        raise OutputError(f"{out}: is read by this command too; choose another --out")


def _texts(values: Any) -> Iterator[str]:
    """Every text in a config: among them are the paths that it reads."""
    if isinstance(values, str):
        yield from (values, values.partition("=")[2])  # PATH, LABEL=PATH
    elif isinstance(values, dict):
        yield from (text for value in values.values() for text in _texts(value))
    elif isinstance(values, list):
        yield from (text for value in values for text in _texts(value))


def _is_within(text: str, out: Path) -> bool:
    try:
        return (
            text != ""
            and Path(text).exists()
            and Path(text).resolve().is_relative_to(out.resolve())
        )
    except (OSError, ValueError):  # a text that is no path
        return False


def _replace(out: Path, hidden: Path) -> None:
    if not out.exists():
        hidden.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(old)
    try:
        hidden.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _of_disk(error: OSError, out: Path, ours: Iterable[Path]) -> MllmtoolError:
    """What failed: a file of others to be read, or the output to be written."""
    name = error.filename
    written = isinstance(name, str) and (
        Path(name) in out.parents or any(Path(name).is_relative_to(folder) for folder in ours)
    )
    if isinstance(name, str) and not written:
        return InputError(f"{name}: cannot be read: {error.strerror}")
    return OutputError(f"{out}: cannot be written: {error}")


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders made on the way that nothing came into, the deepest first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
