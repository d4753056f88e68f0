"""Fine-tune multimodal LLMs without forgetting, repair and fuse checkpoints."""

from importlib.metadata import version

__version__ = version("mllmtool")
