"""Fuse tuned checkpoints of one base. Methods are rows of `METHODS`; torch is loaded by few."""

from mllmtool.fusion.drift import Drift, total
from mllmtool.fusion.engine import Fused, Target, check_integers, fuse, prepare
from mllmtool.fusion.inputs import Inputs
from mllmtool.fusion.journal import Journal, stamps
from mllmtool.fusion.methods import METHODS, check_shares, described, method_of, settings_for
from mllmtool.fusion.patched import PatchedBase
from mllmtool.fusion.settings import Settings

__all__ = [
    "METHODS",
    "Drift",
    "Fused",
    "Inputs",
    "Journal",
    "PatchedBase",
    "Settings",
    "Target",
    "check_integers",
    "check_shares",
    "described",
    "fuse",
    "method_of",
    "prepare",
    "settings_for",
    "stamps",
    "total",
]
