"""The command line: flags from configs, errors to exit statuses.

Help and bad flags load no torch: a command's module is imported when it runs.
"""

import functools
import importlib
import inspect
import json
import logging
import os
import signal
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from mllmtool import __version__
from mllmtool.configs.base import Config, RunConfig, flag
from mllmtool.configs.build_vqa import BuildVqaConfig
from mllmtool.configs.diff import DiffConfig
from mllmtool.configs.eval_handoff import EvalExportConfig, EvalImportConfig
from mllmtool.configs.eval_matrix import (
    EvalBestConfig,
    EvalCheckConfig,
    EvalCompareConfig,
    EvalMatrixConfig,
)
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.configs.fuse import FuseConfig
from mllmtool.configs.mix_data import MixDataConfig
from mllmtool.configs.patch import (
    PatchApplyConfig,
    PatchInfoConfig,
    PatchRemoveConfig,
    PatchStackConfig,
    PatchVerifyConfig,
)
from mllmtool.configs.tailor import TailorConfig
from mllmtool.context import Context, is_main_process
from mllmtool.errors import ConfigError, MllmtoolError
from mllmtool.reports import read_report
from mllmtool.runner import Shown, execute, output_path

log = logging.getLogger("mllmtool")
BROKEN_PIPE = 128 + 13  # as shells report a process that SIGPIPE ended


@dataclass(frozen=True)
class Row:
    """A subcommand. `module` has `run`, and `plan` for `--dry-run`; or `show`, which prints."""

    config: type[Config]
    module: str
    prints: bool = False


GROUPS = {"patch": "Sparse patch files."}  # of commands; one that is a command itself needs no row
COMMANDS: dict[str, Row] = {
    "finetune": Row(FinetuneConfig, "finetune"),
    "mix-data": Row(MixDataConfig, "mix_data"),
    "build-vqa": Row(BuildVqaConfig, "build_vqa"),
    "tailor": Row(TailorConfig, "tailor"),
    "fuse": Row(FuseConfig, "fuse"),
    "eval-matrix": Row(EvalMatrixConfig, "eval_matrix"),
    "eval-matrix check": Row(EvalCheckConfig, "eval_check", prints=True),
    "eval-matrix compare": Row(EvalCompareConfig, "eval_compare", prints=True),
    "eval-matrix best": Row(EvalBestConfig, "eval_best", prints=True),
    "eval-matrix export": Row(EvalExportConfig, "eval_export"),
    "eval-matrix import": Row(EvalImportConfig, "eval_import"),
    "patch apply": Row(PatchApplyConfig, "patch_apply"),
    "patch remove": Row(PatchRemoveConfig, "patch_remove"),
    "patch stack": Row(PatchStackConfig, "patch_stack"),
    "patch info": Row(PatchInfoConfig, "patch_info", prints=True),
    "patch verify": Row(PatchVerifyConfig, "patch_verify", prints=True),
    "diff": Row(DiffConfig, "diff", prints=True),
}


def main() -> None:
    """Run the command line; the only place that catches."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        words = _spread(sys.argv[1:])
        status = build_app()(words, standalone_mode=False, prog_name="mllmtool")
    except MllmtoolError as error:
        sys.stderr.write(f"mllmtool: {error}\n")
        status = error.status
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error of the parser: a bug
            raise
        sys.stderr.write(f"mllmtool: {error.format_message()}\n")
        status = 2
    if status == 130:  # typer hands an interrupt back as this status
        sys.stderr.write("mllmtool: interrupted; nothing was left half-written\n")
    sys.exit(status or 0)


def _spread(words: list[str]) -> list[str]:
    """Put a flag that takes several words, KEY=VALUE, before each of them."""
    takers = {
        flag(name)
        for row in COMMANDS.values()
        for name, field in row.config.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("words")
    }
    spread: list[str] = []
    taker = ""
    for word in words:
        if word.startswith("-") or "=" not in word:
            taker = word if word in takers else ""
        elif taker and spread[-1] != taker:
            spread.append(taker)
        spread.append(word)
    return spread


def build_app() -> typer.Typer:
    """The typer application, one command a row of `COMMANDS`."""
    app = typer.Typer(
        help="Checkpoints of multimodal LLMs: fine-tune, repair, fuse, evaluate.",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    groups = {name: _group(app, name) for name in _groups()}
    for name, row in COMMANDS.items():
        group, _, verb = name.rpartition(" ")
        if name not in groups:
            target = groups[group] if group else app
            target.command(verb, help=row.config.__doc__)(_adapt(name, row))
    return app


def _groups() -> dict[str, None]:
    """The first words of commands of two, in order."""
    return dict.fromkeys(name.partition(" ")[0] for name in COMMANDS if " " in name)


def _group(app: typer.Typer, name: str) -> typer.Typer:
    """A group of commands; one that is a row itself is run where no command of it is named."""
    row = COMMANDS.get(name)
    if row is None:
        group = typer.Typer(help=GROUPS[name], no_args_is_help=True)
    else:
        group = typer.Typer(help=row.config.__doc__, invoke_without_command=True)
        group.callback()(_adapt(name, row))
    app.add_typer(group, name=name)
    return group


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"mllmtool {__version__}\n")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def _interrupt(_signal: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _adapt(name: str, row: Row) -> Any:
    """A function with the signature that typer reads the flags from."""
    parameters = [_parameter(key, field) for key, field in row.config.model_fields.items()]
    if not row.prints:
        recipe = typer.Option(
            help="YAML recipe, or a report.json to run again; flags win", metavar="FILE"
        )
        parameters.append(_keyword("recipe", Annotated[str | None, recipe]))
        parameters += [_parameter(key, field) for key, field in RunConfig.model_fields.items()]

    parameters.append(_keyword("within", typer.Context, inspect.Parameter.empty))

    @functools.wraps(_run)
    def command(within: typer.Context, **values: Any) -> None:
        given = {key: value for key, value in values.items() if value not in (None, [], ())}
        verb = within.invoked_subcommand
        if verb is None:
            _run(name, row, given)
        elif given:
            first = flag(next(iter(given)))
            raise ConfigError(f"{first}: is of {name} itself; write flags of {verb} after it")

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    kind, default = _typer_type(field.annotation), field.get_default()
    if extra.get("argument"):
        return _keyword(
            name, Annotated[kind, typer.Argument(help=field.description)], inspect.Parameter.empty
        )
    unset = field.is_required() or default in (None, (), {}, False)
    described = f"{field.description}" + ("" if unset else f" [default: {_show(default)}]")
    spelt = flag(str(extra.get("flag", name)))
    metavar = str(extra["metavar"]) if "metavar" in extra else _metavar(field.annotation)
    option = typer.Option(spelt, help=described, show_default=False, metavar=metavar)
    return _keyword(name, Annotated[kind | None, option])


def _show(default: Any) -> str:
    if isinstance(default, dict):
        return " ".join(f"{key}={value}" for key, value in default.items())
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _typer_type(annotation: Any) -> Any:
    """What the parser checks; whatever is richer arrives as text and pydantic reads it."""
    inner = _plain(annotation)
    if inner in (bool, int, float):
        return inner
    return list[str] if get_origin(inner) in (tuple, dict) else str


def _metavar(annotation: Any) -> str | None:
    inner = _plain(annotation)
    if get_origin(inner) is tuple:
        inner = _plain(get_args(inner)[0])
    if get_origin(inner) is Literal:
        return f"[{'|'.join(get_args(inner))}]"
    return {bool: None, int: "N", float: "X"}.get(inner, "TEXT")


def _plain(annotation: Any) -> Any:
    """The annotation without its metadata and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation


def _run(name: str, row: Row, given: dict[str, Any]) -> None:
    recipe = given.pop("recipe", None)
    config, run = _configs(row, _recipe(name, recipe) if recipe else {}, given, recipe or "")
    logging.basicConfig(
        level=logging.ERROR if run.quiet else logging.WARNING,
        stream=sys.stderr,
        format="%(message)s",
        force=True,
    )
    log.setLevel(logging.ERROR if run.quiet else logging.INFO)
    if row.prints:
        shown = _module(row).show(config)
        text, status = shown if isinstance(shown, Shown) else (shown, 0)
        _print(text)
        raise typer.Exit(status)
    if run.dry_run:
        out = output_path(config, run) if run.out is not None else None
        work = out.with_name(f".{out.name}.work") if out else None
        plan = _module(row).plan(config, Context(seed=run.seed, quiet=run.quiet, work=work))
        _print(json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    else:
        out = execute(name, lambda *args: _module(row).run(*args), config, run)
        if is_main_process():
            _print(f"{out}\n")


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:  # whoever reads has left; nothing may be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from error


def _module(row: Row) -> Any:
    return importlib.import_module(f"mllmtool.commands.{row.module}")


def _configs(
    row: Row, recipe: dict[str, Any], given: dict[str, Any], origin: str
) -> tuple[Config, RunConfig]:
    run_keys = set(RunConfig.model_fields)
    recipe = row.config.lifted(recipe)
    if not given.keys().isdisjoint(row.config.alternatives):
        recipe = {k: v for k, v in recipe.items() if k not in row.config.alternatives}
    values = {**recipe, **given}
    origin = origin if recipe else ""
    run = RunConfig.parse({k: v for k, v in values.items() if k in run_keys}, origin)
    return row.config.parse({k: v for k, v in values.items() if k not in run_keys}, origin), run


def _recipe(name: str, path: str) -> dict[str, Any]:
    """The values of a recipe: YAML of config keys, or the `config` and `seed` of a report."""
    from mllmtool.configs.yaml_text import load_yaml

    try:
        values = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--recipe: {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--recipe: {path} is not a mapping of keys to values")
    if values.get("schema") != "mllmtool.report/1":
        return {str(key).replace("-", "_"): value for key, value in values.items()}
    report = read_report(Path(path))
    if report.command != name:
        raise ConfigError(f"--recipe: {path} is a report of {report.command}, not of {name}")
    return {**report.config, "seed": report.seed}
