"""Fixtures that are made once a session: tiny checkpoints and samples, to be read only."""

from pathlib import Path

import factories
import pytest
import torch
from hypothesis import settings

settings.register_profile("mllmtool", deadline=None)  # the machine may be busy
settings.load_profile("mllmtool")

torch.set_num_threads(1)  # tiny tensors; and a sum must not depend on who else is at work


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA."""
    return factories.tiny_llava(tmp_path_factory.mktemp("llava") / "base")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-only Llama."""
    return factories.tiny_llama(tmp_path_factory.mktemp("llama") / "base")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve samples with pictures for the LLaVA."""
    return factories.colour_samples(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight samples of text for the Llama."""
    return factories.text_samples(tmp_path_factory.mktemp("sums"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--regenerate` writes the golden files again; read the diff before you commit it."""
    parser.addoption("--regenerate", action="store_true", help="write golden files again")


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--regenerate"))
