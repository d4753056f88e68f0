"""Configs of `patch apply|remove|stack|info|verify`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mllmtool.configs.base import Config


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
    """Fuse several patches of one base into one; where they overlap, the mean."""

    patch: Annotated[
        tuple[str, ...],
        Field(description="patch files", min_length=2, json_schema_extra={"argument": True}),
    ]
    base: Annotated[str, Field(description="base checkpoint")]


class PatchInfoConfig(Config):
    """Print what a patch file says of itself, as JSON."""

    patch: Annotated[str, Field(description="patch file", json_schema_extra={"argument": True})]


class PatchVerifyConfig(Config):
    """Check a patch file against the base that it was made for."""

    patch: Annotated[str, Field(description="patch file", json_schema_extra={"argument": True})]
    base: Annotated[str, Field(description="base checkpoint")]
