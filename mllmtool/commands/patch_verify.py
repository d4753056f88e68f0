"""`patch verify`: whether a patch is whole and belongs to a base; silence is no answer."""

import json

from mllmtool.checkpoints import Checkpoint, Patch
from mllmtool.configs.patch import PatchVerifyConfig


def show(config: PatchVerifyConfig) -> str:
    """Read every bitmap and value, hash the base, and say what was checked.

    Raises:
        CheckpointError: the patch is broken.
        MismatchError: the base is another.
    """
    base, patch = Checkpoint.open(config.base), Patch.open(config.patch)
    patch.check_base(base)
    changed = 0
    for name in patch.names:
        mask, values = patch.mask(name), patch.values(name)
        changed += int((base[name][mask] != values).sum())
    verdict = {
        "patch": config.patch,
        "base": config.base,
        "sha256": patch.header.base,
        "tensors": len(patch.names),
        "kept": sum(patch.num_kept(name) for name in patch.names),
        "changed": changed,
        "fits": True,
    }
    return json.dumps(verdict, indent=1, ensure_ascii=False) + "\n"
