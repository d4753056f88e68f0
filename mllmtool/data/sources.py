"""The sources of a mix: opened, checked, and how many rows of each are to be taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mllmtool.configs.mix_data import Format, MixDataConfig, Source
from mllmtool.context import Context
from mllmtool.data.checks import GOOD, INVALID, Checks
from mllmtool.data.controls import Pairing, paired_anew
from mllmtool.data.duplicates import mark_duplicates
from mllmtool.data.exclusion import Exclusion, read_exclusion
from mllmtool.data.files import find_files, open_layout, stamp
from mllmtool.data.formats import detect
from mllmtool.data.images import ImageFolder
from mllmtool.data.mixing import Integers, permutation, quotas, quotas_around, rows_for
from mllmtool.data.rows import Part, Rows, row_place, scan
from mllmtool.data.samples import images_root, parse_object
from mllmtool.data.splitting import all_rows
from mllmtool.errors import ConfigError, DataError


@dataclass(frozen=True)
class Opened:
    """Checked sources, by name."""

    checks: Mapping[str, Checks]
    rows: Mapping[str, Rows]
    pairings: Mapping[str, Pairing]


def open_sources(config: MixDataConfig, context: Context, spool: Path) -> Opened:
    """Read every row of every source; what is not plain is unpacked into the folder `spool`.

    Raises:
        DataError: a file or a row is wrong.
    """
    exclusion = read_exclusion(config.exclude, config.exclude_by) if config.exclude else None
    opened = {source.name: _open(source, config, exclusion, spool) for source in config.source}
    rows = scan(opened, config.workers, config.on_invalid == "drop", context)
    checks = {name: each for name, (_, each) in opened.items()}
    if config.duplicates != "keep":
        mark_duplicates(rows, checks, config.duplicates == "drop")
    pairings = {}
    for name, kind in config.controls.items():
        usable = np.flatnonzero(rows[name].fields["state"] == GOOD)
        seed = context.stream_seed(f"mix/{name}/pairs")
        pairings[name] = paired_anew(kind, rows[name].fields, usable, seed)
        _drop_unpaired(rows[name], pairings[name], usable, config)
    return Opened(checks, rows, pairings)


def _open(
    source: Source, config: MixDataConfig, exclusion: Exclusion | None, spool: Path
) -> tuple[list[Part], Checks]:
    paths = find_files(source.file)
    marks = [stamp(path) for path in paths]
    layouts = [open_layout(path, spool) for path in paths]
    parts = [Part(*each) for each in zip(paths, layouts, marks, strict=True)]
    folders = {images_root(path, source.images or config.images).resolve(): 0 for path in paths}
    if len(folders) > 1:
        raise ConfigError(
            f"--source {source.name}: its files have their images in"
            f" {' and '.join(map(str, list(folders)[:2]))}; give the folder as --images"
        )
    checks = Checks(
        form=source.format or config.format or _detected(parts),
        folder=ImageFolder(images_root(paths[0], source.images or config.images)),
        unit=config.unit,
        tokenizer=Path(config.tokenizer) if config.tokenizer else None,
        hashes=config.duplicates != "keep" or source.name in config.controls,
        decode=config.check_images,
        exclusion=exclusion,
    )
    return parts, checks


def _detected(parts: Sequence[Part]) -> Format:
    """The format of the first row."""
    layout = parts[0].layout
    with layout.path.open("rb") as file:
        for begin, data, _ in all_rows(file.fileno(), layout):
            where = row_place(parts[0], begin, 0)
            return detect(parse_object(data, where), where)
    raise DataError(f"{parts[0].path}: holds no samples")


def _drop_unpaired(rows: Rows, pairing: Pairing, usable: Integers, config: MixDataConfig) -> None:
    alone = usable[pairing.turns[usable] < 0]
    if len(alone) and config.on_invalid == "error":
        images = rows.fields["images"][alone[0]]
        raise DataError(
            f"{rows.where(int(alone[0]))}: has {images} images, and no partner for"
            f" --control {pairing.kind} among the rows with as many; leave such rows out with"
            " --on-invalid drop"
        )
    rows.fields["state"][alone] = INVALID


def drawn_orders(rows: Mapping[str, Rows], context: Context) -> dict[str, Integers]:
    """The usable rows of each source in the order in which a mix takes them."""
    orders = {}
    for name, each in rows.items():
        order = permutation(len(each), context.stream_seed(f"mix/{name}/rows"))
        orders[name] = order[each.fields["state"][order] == GOOD]
    return orders


def row_counts(
    config: MixDataConfig, rows: Mapping[str, Rows], orders: Mapping[str, Integers]
) -> dict[str, int]:
    """How many rows each source gives.

    Raises:
        ConfigError: a source is too small.
    """
    weights = {name: rows[name].fields["weight"][order] for name, order in orders.items()}
    whole = {name: int(each.sum()) for name, each in weights.items()}
    wanted = dict(zip(whole, _unit_quotas(config, list(whole.values())), strict=True))
    for source in config.source:
        passes = source.max_repeat or config.max_repeat
        _check_size(source, wanted[source.name], whole[source.name], passes, config)
    return {
        name: len(orders[name]) if _is_whole(config, name) else rows_for(wanted[name], each)
        for name, each in weights.items()
    }


def _is_whole(config: MixDataConfig, name: str) -> bool:
    """Whether every row of a source is taken once, also those that weigh nothing."""
    last = config.mode == "replay" and name == config.source[-1].name
    return config.mode == "concat" or last or name == config.all_of


def _unit_quotas(config: MixDataConfig, whole: list[int]) -> list[int]:
    if config.mode == "concat":
        return whole
    if config.mode == "replay":
        return [config.replay or 0] * (len(whole) - 1) + whole[-1:]
    if config.total is not None:
        return quotas(config.shares, config.total)
    names = [source.name for source in config.source]
    anchor = names.index(config.all_of) if config.all_of is not None else 0
    return quotas_around(config.shares, anchor, config.keep_target or whole[anchor])


def _check_size(
    source: Source, wanted: int, whole: int, passes: int, config: MixDataConfig
) -> None:
    missing = wanted - whole * passes
    if missing <= 0:
        return
    unit = "rows" if config.unit == "instances" else config.unit
    way = f"{-(-wanted // whole)} would do, or " if whole else ""
    smaller = "--replay" if config.mode == "replay" else "share or --total"
    raise ConfigError(
        f"--source {source.name}: {wanted} {unit} are to come from {source.file}, which has"
        f" {whole}: {missing} are missing with --max-repeat {passes}; {way}a smaller {smaller}"
    )
