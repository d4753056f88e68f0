"""`mix-data`: sample files in exact shares of instances, with the provenance of every row.

Images stay where they are. When all sources have their images in one folder, rows are written as
they are; else image names are rewritten to be relative to the nearest folder that holds all of
them. Either way the report names the folder, as `run.images_root`, relative to the output, and
whatever reads the mix finds it there.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from mllmtool.configs.mix_data import MixDataConfig
from mllmtool.context import Context
from mllmtool.data.mixing import Draw, draws, quotas
from mllmtool.data.rows import RowFile, scan
from mllmtool.data.samples import images_root
from mllmtool.errors import ConfigError
from mllmtool.reports import Artifact
from mllmtool.runner import Made

SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Mix:
    """Checked sources, how many rows of each, and the folder that image names are relative to.

    There is none when no row has images. `prefixes[name]` leads from it to the images of a source;
    "" when they lie in it.
    """

    files: Mapping[str, RowFile]
    counts: Mapping[str, int]
    root: Path | None
    prefixes: Mapping[str, str]


def run(config: MixDataConfig, context: Context, into: Path) -> Made:
    """Write `samples.jsonl`."""
    mix = _open(config, context)
    with_images = Counter[str]()
    with (into / SAMPLES).open("wb") as out:
        for draw, line in _lines(mix, context):
            out.write(line + b"\n")
            with_images[draw.source] += mix.files[draw.source].with_images[draw.index]
    for file in mix.files.values():
        file.check_unchanged()
    inputs = [
        Artifact(role=source.name, path=source.file, sha256=mix.files[source.name].sha256)
        for source in config.source
    ]
    sources = _sources(config, mix)
    for name, row in sources.items():
        row["rows_with_images"] = with_images[name]
    results = {
        "rows": config.total,
        "share_with_images": with_images.total() / config.total,
        "sources": sources,
    }
    run = {"images_root": os.path.relpath(mix.root, into.resolve())} if mix.root else {}
    return Made(inputs, results, run)


def plan(config: MixDataConfig, context: Context) -> dict[str, Any]:
    """Check every row of every source, and say how many would be taken."""
    mix = _open(config, context)
    return {
        "rows": config.total,
        "images_root": str(mix.root) if mix.root else None,
        "sources": _sources(config, mix),
    }


def _open(config: MixDataConfig, context: Context) -> Mix:
    files = {}
    for source in context.track(config.source, "reading"):
        images = images_root(source.file, source.images or config.images)
        files[source.name] = scan(Path(source.file), images)
    counts = dict(zip(files, quotas([s.share for s in config.source], config.total), strict=True))
    _check_sizes(config, files, counts)
    roots = {
        name: file.images.resolve()
        for name, file in files.items()
        if counts[name] and any(file.with_images)
    }
    root = Path(os.path.commonpath(roots.values())) if roots else None
    prefixes = {name: os.path.relpath(path, root) for name, path in roots.items()}
    return Mix(files, counts, root, {n: "" if p == "." else p for n, p in prefixes.items()})


def _check_sizes(
    config: MixDataConfig, files: Mapping[str, RowFile], counts: Mapping[str, int]
) -> None:
    for name, count in counts.items():
        rows = len(files[name])
        missing = count - rows * config.max_repeat
        if missing > 0:
            raise ConfigError(
                f"--source {name}: {count} rows are to come from {files[name].path}, which has"
                f" {rows}: {missing} are missing with --max-repeat {config.max_repeat};"
                f" {-(-count // rows)} would do, or a smaller share or --total"
            )


def _lines(mix: Mix, context: Context) -> Iterator[tuple[Draw, bytes]]:
    rows = {name: len(file) for name, file in mix.files.items()}
    total = sum(mix.counts.values())
    with ExitStack() as stack:
        opened = {n: stack.enter_context(file.path.open("rb")) for n, file in mix.files.items()}
        for draw in context.track(draws(mix.counts, rows, context), "writing", total):
            line = mix.files[draw.source].line(opened[draw.source], draw.index)
            yield draw, _mixed(line, draw, mix.prefixes.get(draw.source, ""))


def _mixed(line: bytes, draw: Draw, prefix: str) -> bytes:
    """The row with its provenance. `hash`: the first 16 digits of the SHA-256 of its line."""
    origin: dict[str, Any] = {"source": draw.source, "index": draw.index, "copy": draw.copy}
    origin["hash"] = sha256(line).hexdigest()[:16]
    if not prefix and b'"_mix"' not in line:  # as it is, to the byte
        return line[:-1].rstrip() + f', "_mix": {json.dumps(origin)}}}'.encode()
    values = json.loads(line)
    if "_mix" in values:
        origin["before"] = values["_mix"]
    if prefix and values.get("images"):
        values["images"] = [str(PurePosixPath(prefix, name)) for name in values["images"]]
    return json.dumps({**values, "_mix": origin}, ensure_ascii=False).encode()


def _sources(config: MixDataConfig, mix: Mix) -> dict[str, dict[str, Any]]:
    found = {}
    for source in config.source:
        rows, count = len(mix.files[source.name]), mix.counts[source.name]
        found[source.name] = {
            "share_asked": source.share,
            "share_got": count / config.total,
            "rows_read": rows,
            "rows_chosen": min(count, rows),
            "rows_written": count,
            "passes": count / rows,
            "images_prefix": mix.prefixes.get(source.name),
        }
    return found
