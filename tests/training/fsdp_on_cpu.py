"""`mllmtool` with shards of the model on CPU processes, which it refuses by itself.

accelerate trains with DDP where it is told of FSDP on a CPU. Here its state is told otherwise, so
that a test sees torch's own FSDP2 over gloo.
"""

from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from mllmtool.cli import main
from mllmtool.training import sharding

_init = AcceleratorState.__init__


def init(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **values: Any) -> None:
    """As on GPUs: a plugin means FSDP."""
    _init(self, *args, fsdp_plugin=fsdp_plugin, **values)
    if fsdp_plugin is not None:
        if self.mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self.mixed_precision)
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    AcceleratorState.__init__ = init
    sharding.has_gpu = lambda: True
    main()
