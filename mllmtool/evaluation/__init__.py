"""Checkpoints on a suite: run -> predictions -> scores -> report; only `run` needs a model."""
