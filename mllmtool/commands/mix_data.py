"""`mix-data`: sample files in exact shares of instances, with the provenance of every row.

Images stay where they are. When all sources have their images in one folder, rows are written as
they are; else image names are rewritten to be relative to the nearest folder that holds all of
them. Either way the report names the folder, as `run.images_root`, relative to the output, and
whatever reads the mix finds it there.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mllmtool.configs.mix_data import MixDataConfig, Source
from mllmtool.context import Context
from mllmtool.data.checks import tokenizer_file
from mllmtool.data.composition import draw_bar, fields_of, of_mix, of_rows
from mllmtool.data.files import sha256_of
from mllmtool.data.mixing import Draws, draws
from mllmtool.data.parallel import Workers
from mllmtool.data.rows import Rows
from mllmtool.data.sinks import dataset_info, open_sink
from mllmtool.data.sources import Opened, drawn_orders, open_sources, row_counts
from mllmtool.data.writing import CHUNK, Origin, Writing, chunks, write_chunk
from mllmtool.reports import Artifact
from mllmtool.runner import Made

SAMPLES, BAR, INFO = "samples", "composition.png", "dataset_info.json"


@dataclass(frozen=True)
class Mix:
    """Checked sources, the rows drawn from them, and the folder that image names are relative to.

    There is none when no row has images. `prefixes[name]` leads from it to the images of a source;
    "" when they lie in it.
    """

    opened: Opened
    counts: Mapping[str, int]
    drawn: Draws
    root: Path | None
    prefixes: Mapping[str, str]


def run(config: MixDataConfig, context: Context, into: Path) -> Made:
    """Write the samples, a bar of what they are made of, and an entry for LLaMA-Factory."""
    spool = into / ".unpacked"
    mix = _mix(config, context, spool)
    samples = into / f"{SAMPLES}.{config.write}"
    _write(mix, config, context, samples)
    for rows in mix.opened.rows.values():
        rows.check_unchanged()
    shutil.rmtree(spool, ignore_errors=True)
    draw_bar(mix.counts, into / BAR)
    (into / INFO).write_text(json.dumps(dataset_info(samples.name), indent=1) + "\n")
    run = {"images_root": os.path.relpath(mix.root, into.resolve())} if mix.root else {}
    return Made(_inputs(config, mix), _results(config, mix), run)


def plan(config: MixDataConfig, context: Context) -> dict[str, Any]:
    """Check every row of every source, and say how many would be taken."""
    with TemporaryDirectory() as spool:
        mix = _mix(config, context, Path(spool))
        return _results(config, mix) | {"images_root": str(mix.root) if mix.root else None}


def _mix(config: MixDataConfig, context: Context, spool: Path) -> Mix:
    opened = open_sources(config, context, spool)
    orders = drawn_orders(opened.rows, context)
    counts = row_counts(config, opened.rows, orders)
    arrangement = f"{config.arrangement}/{config.block or 1}"
    drawn = draws(counts, orders, arrangement, context)
    roots = {
        name: opened.checks[name].folder.root.resolve()
        for name, rows in opened.rows.items()
        if counts[name] and rows.fields["images"].any()
    }
    root = Path(os.path.commonpath(roots.values())) if roots else None
    prefixes = {name: os.path.relpath(path, root) for name, path in roots.items()}
    prefixes = {name: "" if path == "." else path for name, path in prefixes.items()}
    return Mix(opened, counts, drawn, root, prefixes)


def _write(mix: Mix, config: MixDataConfig, context: Context, samples: Path) -> None:
    opened, part = mix.opened, config.part(len(mix.drawn))
    rows = list(opened.rows.values())
    controls = config.controls
    origins = [
        Origin(name, checks.form, mix.prefixes.get(name, ""), controls.get(name))
        for name, checks in opened.checks.items()
    ]
    paths = [part.layout.path for each in rows for part in each.parts]
    pairings = [opened.pairings.get(name) for name in opened.rows]
    tasks = chunks(mix.drawn[part.start : part.stop], rows, pairings)
    with (
        closing(open_sink(samples)) as sink,
        Workers(config.workers, Writing(origins, paths)) as pool,
    ):
        total = -(-len(part) // CHUNK)
        for lines in context.track(pool.map(write_chunk, tasks), "writing", total):
            sink.write(lines)


def _inputs(config: MixDataConfig, mix: Mix) -> list[Artifact]:
    read = [
        (name, part.path, digest)
        for name, rows in mix.opened.rows.items()
        for part, digest in zip(rows.parts, rows.sha256, strict=True)
    ]
    read += [("exclude", Path(name), sha256_of(Path(name))) for name in config.exclude]
    if config.tokenizer:
        file = tokenizer_file(Path(config.tokenizer))
        read.append(("tokenizer", file, sha256_of(file)))
    return [Artifact(role=role, path=str(path), sha256=digest) for role, path, digest in read]


def _results(config: MixDataConfig, mix: Mix) -> dict[str, Any]:
    sources, total = {}, len(mix.drawn)
    weights = [
        int(fields_of("weight", number, mix.drawn, rows).sum())
        for number, rows in enumerate(mix.opened.rows.values())
    ]
    for number, source in enumerate(config.source):
        rows = mix.opened.rows[source.name]
        with_images = fields_of("images", number, mix.drawn, rows) > 0
        sources[source.name] = {
            **_of_source(config, source, mix, rows),
            "share_got": weights[number] / max(1, sum(weights)),
            "rows_with_images": int(with_images.sum()),
            config.unit: weights[number],
        }
    with_images = sum(found["rows_with_images"] for found in sources.values())
    part = config.part(total)
    return {
        "rows": total,
        "rows_in_this_shard": len(part),
        "share_with_images": with_images / max(1, total),
        **of_mix(mix.drawn, list(mix.opened.rows.values())),
        "sources": sources,
    }


def _of_source(config: MixDataConfig, source: Source, mix: Mix, rows: Rows) -> dict[str, Any]:
    count, found = mix.counts[source.name], of_rows(rows)
    return {
        "format": mix.opened.checks[source.name].form,
        "share_asked": source.share,
        **found,
        "rows_duplicate": None if config.duplicates == "keep" else found["rows_duplicate"],
        "rows_chosen": min(count, found["rows_usable"]),
        "rows_written": count,
        "passes": count / max(1, found["rows_usable"]),
        "images_prefix": mix.prefixes.get(source.name),
    }
