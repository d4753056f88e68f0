"""Config of `diff`."""

from typing import Annotated

from pydantic import Field

from mllmtool.configs.base import Config


class DiffConfig(Config):
    """Print which parts and tensors differ between two checkpoints, and by how much."""

    a: Annotated[str, Field(description="checkpoint", json_schema_extra={"argument": True})]
    b: Annotated[
        str,
        Field(description="checkpoint, or LoRA adapter of A", json_schema_extra={"argument": True}),
    ]
    json_output: Annotated[
        bool, Field(description="print JSON instead of a table", json_schema_extra={"flag": "json"})
    ] = False
    plot: Annotated[
        str | None,
        Field(description="PNG file to make: change and share of changed entries by depth"),
    ] = None
    workers: Annotated[int, Field(description="threads", ge=1, le=64)] = 1
