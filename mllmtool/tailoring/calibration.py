"""The samples that moments are recorded on: found, drawn and batched."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from torch import Tensor

from mllmtool.data.samples import Sample, images_root, read_samples
from mllmtool.errors import ConfigError, DataError
from mllmtool.models.encoding import Encoder
from mllmtool.reports import read_report
from mllmtool.reports.report import REPORT_NAME


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
    report = sft / REPORT_NAME
    if not report.is_file():
        raise ConfigError(
            f"--calibration: is required, as {sft} has no {REPORT_NAME} to name its training data"
        )
    config = read_report(report).config
    if not isinstance(config.get("samples"), str):
        raise ConfigError(
            f"--calibration: is required, as {report} names no training data; is it finetune's?"
        )
    path = _existing(config["samples"], report)
    folder = images or config.get("images")
    return SampleFile(path, _existing(folder, report) if folder else images_root(path))


def batches(
    encoder: Encoder, samples: list[Sample], root: Path, size: int
) -> Iterator[dict[str, Tensor]]:
    """The samples as in training, answers included, `size` at a time."""
    for start in range(0, len(samples), size):
        yield encoder.train_batch(samples[start : start + size], root)


def _existing(name: str, report: Path) -> Path:
    for path in (Path(name), report.parent / name):
        if path.exists():
            return path
    raise DataError(
        f"{name}: which {report} names, is neither here nor in {report.parent}; pass --calibration"
    )
