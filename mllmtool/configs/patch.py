"""Configs of `patch apply|remove|stack|info|verify`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mllmtool.configs.base import Config

Overlap = Literal["mean", "sum", "average", "ties"]


class PatchApplyConfig(Config):
    """Write the checkpoint that is the base with the patch on it."""

    patch: Annotated[str, Field(description="patch file", json_schema_extra={"argument": True})]
    base: Annotated[str, Field(description="base checkpoint")]

    def default_out(self) -> str:
        """`p.safetensors` -> `p-applied`."""
        return str(Path(self.patch).with_suffix("")) + "-applied"


class PatchRemoveConfig(Config):
    """Write the base again from a patched checkpoint: base values come back bit for bit."""

    patch: Annotated[str, Field(description="patch file", json_schema_extra={"argument": True})]
    model: Annotated[str, Field(description="patched checkpoint")]
    base: Annotated[str, Field(description="base checkpoint")]

    def default_out(self) -> str:
        """`m` -> `m-restored`."""
        return f"{Path(self.model)}-restored"


class PatchStackConfig(Config):
    """Fuse several patches of one base into one."""

    patch: Annotated[
        tuple[str, ...],
        Field(description="patch files", min_length=2, json_schema_extra={"argument": True}),
    ]
    base: Annotated[str, Field(description="base checkpoint")]
    overlap: Annotated[
        Overlap,
        Field(
            description="where patches overlap: their mean, the sum of their changes, or the mean"
            " of those with the sum's sign; average divides every sum by the number of patches"
        ),
    ] = "mean"


class PatchInfoConfig(Config):
    """Print what a patch file says of itself, as JSON."""

    patch: Annotated[str, Field(description="patch file", json_schema_extra={"argument": True})]


class PatchVerifyConfig(Config):
    """Check a patch file against the base that it was made for."""

    patch: Annotated[str, Field(description="patch file", json_schema_extra={"argument": True})]
    base: Annotated[str, Field(description="base checkpoint")]
