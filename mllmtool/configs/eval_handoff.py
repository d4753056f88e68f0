"""Configs of `eval-matrix export` and `eval-matrix import`."""

from typing import Annotated, Literal

from pydantic import Field

from mllmtool.configs.base import Config


class EvalExportConfig(Config):
    """Write a suite as tasks of lmms-eval or VLMEvalKit, to be run there."""

    suite: Annotated[str, Field(description="suite of tasks, YAML")]
    to: Annotated[Literal["lmms-eval", "vlmevalkit"], Field(description="the harness")]
