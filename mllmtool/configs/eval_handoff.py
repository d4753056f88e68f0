"""Configs of `eval-matrix export` and `eval-matrix import`."""

from typing import Annotated, Literal

from pydantic import Field

from mllmtool.configs.base import Config
from mllmtool.configs.eval_matrix import Bootstrap, Margin


class EvalExportConfig(Config):
    """Write a suite as tasks of lmms-eval or VLMEvalKit, to be run there."""

    suite: Annotated[str, Field(description="suite of tasks, YAML")]
    to: Annotated[Literal["lmms-eval", "vlmevalkit"], Field(description="the harness")]


class EvalImportConfig(Config):
    """Judge results that another harness made of a suite: the same matrix, tests and page."""

    source: Annotated[
        Literal["lmms-eval", "vlmevalkit", "llama-factory"],
        Field(description="the harness", json_schema_extra={"flag": "from"}),
    ]
    suite: Annotated[str, Field(description="suite of tasks, YAML")]
    base: Annotated[
        str, Field(description="result file, or folder of them, of the base to compare with")
    ]
    checkpoint: Annotated[
        tuple[str, ...], Field(description="LABEL=FILE or LABEL=FOLDER of another, repeated")
    ] = ()
    margin: Margin = None
    bootstrap: Bootstrap = 10000
