"""The samples that moments are recorded on: found, drawn and batched."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from torch import Tensor

from mllmtool.checkpoints.adapter import is_adapter
from mllmtool.data.samples import Sample, images_root, read_samples
from mllmtool.errors import ConfigError, DataError
from mllmtool.models.encoding import Encoder
from mllmtool.reports import read_report
from mllmtool.reports.report import REPORT_NAME
from mllmtool.tailoring.workers import share


@dataclass(frozen=True)
class SampleFile:
    """A file of samples and the folder of its images."""

    path: Path
    root: Path

    def draw(self, number: int, rng: Random) -> list[Sample]:
        """`number` of its samples, all when it has fewer, in the file's order.

        Raises:
            DataError: it is missing, malformed or empty.
        """
        samples = list(read_samples(self.path))
        if not samples:
            raise DataError(f"{self.path}: has no samples")
        places = rng.sample(range(len(samples)), min(number, len(samples)))
        return [samples[place] for place in sorted(places)]

    def draw_beside(self, drawn: list[Sample], number: int, rng: Random) -> list[Sample]:
        """`number` of the samples that were not drawn, as many as there are."""
        known = {sample.id for sample in drawn}
        others = [sample for sample in read_samples(self.path) if sample.id not in known]
        places = rng.sample(range(len(others)), min(number, len(others)))
        return [others[place] for place in sorted(places)]


@dataclass(frozen=True)
class Data:
    """The samples drawn from a file."""

    file: SampleFile
    samples: list[Sample]


def given_samples(path: str, images: str | None) -> SampleFile:
    """A file that a flag names."""
    return SampleFile(Path(path), images_root(path, images))


def training_samples(sft: Path, images: str | None) -> SampleFile:
    """The samples that a fine-tuned checkpoint's report says it was trained on.

    Relative paths are tried from here, then from the report's folder.

    Raises:
        ConfigError: there is no report, or one that names no training data.
        DataError: the report cannot be read, or what it names is not there.
    """
    report = report_of(sft)
    if report is None:
        raise ConfigError(
            f"--calibration: is required, as {sft} has no {REPORT_NAME} to name its training data;"
            " or pass --solver none, which needs no samples"
        )
    config = read_report(report).config
    if not isinstance(config.get("samples"), str):
        raise ConfigError(
            f"--calibration: is required, as {report} names no training data; is it finetune's?"
        )
    path = _existing(config["samples"], report)
    folder = images or config.get("images")
    return SampleFile(path, _existing(folder, report) if folder else images_root(path))


def report_of(sft: Path) -> Path | None:
    """The report of a tuned checkpoint; an adapter's may be one folder up, as `finetune` has it."""
    places = (sft, sft.parent) if is_adapter(sft) else (sft,)
    return next((p / REPORT_NAME for p in places if (p / REPORT_NAME).is_file()), None)


def batches(
    encoder: Encoder, data: Data, size: int, positions: int | None
) -> Iterator[dict[str, Tensor]]:
    """Encode this process's share of the samples as in training, `size` at a time.

    Raises:
        DataError: one cannot be encoded, or is longer than the model's `positions`.
    """
    for start in share(range(0, len(data.samples), size)):
        batch = data.samples[start : start + size]
        for sample in batch:
            tokens = len(encoder.train_row(sample, data.file.root).ids)
            if positions is not None and tokens > positions:
                raise DataError(
                    f"sample {sample.id}: {tokens} tokens, more than the {positions} positions of"
                    " the model; leave it out"
                )
        yield encoder.train_batch(batch, data.file.root)


def _existing(name: str, report: Path) -> Path:
    for path in (Path(name), report.parent / name):
        if path.exists():
            return path
    raise DataError(
        f"{name}: which {report} names, is neither here nor in {report.parent}; pass --calibration"
    )
