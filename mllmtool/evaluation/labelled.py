"""Checkpoints under the labels that they have in the report."""

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mllmtool.checkpoints import Checkpoint, check_aligned
from mllmtool.data.suites import NAME
from mllmtool.errors import ConfigError
from mllmtool.evaluation.origin import origin_of
from mllmtool.evaluation.results import CheckpointRow

BASE = "base"
ENCODER_FILES = (
    "*token*",
    "*processor_config.json",
    "chat_template*",
    "vocab*",
    "merges*",
    "*_tokenizer/*",
)
ENDS_FILE = "generation_config.json"
PROCESSOR, OLDER = "processor_config.json", "preprocessor_config.json"
NOT_COMPUTED = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}


@dataclass(frozen=True)
class Labelled:
    """A checkpoint with its label."""

    label: str
    checkpoint: Checkpoint

    @property
    def computation(self) -> Any:
        """What of its config decides what is computed."""
        return _computed(self.checkpoint.config)

    @property
    def encoding(self) -> str:
        """Hash of the files that decide how text and images become tensors, and where text ends."""
        folder = self.checkpoint.path
        files = {path for pattern in ENCODER_FILES for path in folder.glob(pattern)}
        files.add(folder / ENDS_FILE)
        if _nests_image_processor(folder / PROCESSOR):
            files.discard(folder / OLDER)  # for older tools; not read
        whole = hashlib.sha256()
        for path in sorted(file for file in files if file.is_file()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(folder)} {digest}\n".encode())
        return whole.hexdigest()


def open_labelled(base: str, others: Sequence[str]) -> list[Labelled]:
    """The base and the others, each given as `LABEL=PATH`, as a path or as a pattern of paths.

    Raises:
        ConfigError: a label is no name, or given twice, or a pattern matches nothing.
        CheckpointError: a checkpoint cannot be read.
        MismatchError: a checkpoint's tensors are not those of the base.
    """
    paths = labelled_paths(base, others)
    found = [Labelled(label, Checkpoint.open(path)) for label, path in paths.items()]
    check_aligned(found[0].checkpoint, [one.checkpoint for one in found])
    return found


def labelled_paths(base: str, others: Sequence[str]) -> dict[str, str]:
    """The base and the others by label, each as `LABEL=PATH`, as a path or as a pattern of paths.

    Raises:
        ConfigError: a label is no name, or given twice, or a pattern matches nothing.
    """
    found = {BASE: base}
    for label, path in chain.from_iterable(map(_labels, others)):
        if label in found:
            raise ConfigError(
                f"--checkpoint: {path} and {found[label]} are both labelled {label};"
                f" write LABEL={path}"
            )
        found[label] = path
    return found


def describe(checkpoints: Sequence[Labelled]) -> list[CheckpointRow]:
    """Rows of the report, the base's first."""
    base = checkpoints[0]
    fingerprints = [one.checkpoint.fingerprint() for one in checkpoints]
    return [
        CheckpointRow(
            label=one.label,
            fingerprint=fingerprint,
            same_as_base=(fingerprint, one.encoding, one.computation)
            == (fingerprints[0], base.encoding, base.computation),
            **origin_of(one.checkpoint.path)._asdict(),
        )
        for one, fingerprint in zip(checkpoints, fingerprints, strict=True)
    ]


def _labels(text: str) -> Iterator[tuple[str, str]]:
    """`LABEL=PATH`; or a path, whose label is its name; or a pattern, whose labels are what varies.

    `runs/*/checkpoint-*` gives `a-checkpoint-20`: the names from the first that varies on.
    """
    label, sign, path = text.partition("=")
    if sign and "/" not in label and not Path(text).is_dir():
        yield _checked(label, path)
    elif not glob.has_magic(text) or Path(text).exists():
        yield _checked(Path(text).resolve().name, text)
    else:
        found = sorted(glob.glob(text), key=_numbered)  # noqa: PTH207 (an absolute pattern too)
        if not found:
            raise ConfigError(f"--checkpoint: {text} matches nothing")
        fixed = next(n for n, part in enumerate(Path(text).parts) if glob.has_magic(part))
        for one in found:
            yield _checked("-".join(Path(one).parts[fixed:]), one)


def _numbered(path: str) -> list[str | tuple[int, str]]:
    """By which `checkpoint-90` comes before `checkpoint-100`."""
    parts = re.split(r"(\d+)", path)
    return [(int(part), part) if place % 2 else part for place, part in enumerate(parts)]


def _checked(label: str, path: str) -> tuple[str, str]:
    if not re.fullmatch(NAME, label):
        raise ConfigError(
            f"--checkpoint: {label!r} cannot be a label, which is letters, digits and . _ + -;"
            f" write LABEL={path}"
        )
    return label, path


def _computed(config: Any) -> Any:
    if not isinstance(config, Mapping):
        return config
    return {key: _computed(value) for key, value in config.items() if key not in NOT_COMPUTED}


def _nests_image_processor(path: Path) -> bool:
    try:
        return "image_processor" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
