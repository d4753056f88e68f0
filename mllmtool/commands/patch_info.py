"""`patch info`: what a patch file says of itself, as JSON."""

import json
import math

from mllmtool.checkpoints import Patch
from mllmtool.configs.patch import PatchInfoConfig


def show(config: PatchInfoConfig) -> str:
    """The header, the number of entries of each tensor, and their share."""
    patch = Patch.open(config.patch)
    kept = {name: patch.num_kept(name) for name in patch.names}
    entries = {name: math.prod(tensor.shape) for name, tensor in patch.header.tensors.items()}
    whole = sum(entries.values())
    info = {
        "patch": config.patch,
        "bytes": patch.path.stat().st_size,
        "base": patch.header.base,
        "origin": patch.header.origin,
        "kept": sum(kept.values()),
        "share": sum(kept.values()) / whole if whole else None,
        "tensors": {
            name: {
                "dtype": patch.header.tensors[name].dtype,
                "shape": list(patch.header.tensors[name].shape),
                "kept": kept[name],
                "share": kept[name] / entries[name] if entries[name] else None,
            }
            for name in patch.names
        },
    }
    return json.dumps(info, indent=1, ensure_ascii=False) + "\n"
