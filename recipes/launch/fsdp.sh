#!/usr/bin/env bash
# One machine, a model that one GPU cannot hold: bash recipes/launch/fsdp.sh finetune --recipe ...
# Weights, gradients and moments lie in shards on the GPUs. Each process reads the base into the
# machine's own memory first, and the first one gathers it there in the end.
set -euo pipefail
exec torchrun --standalone --nproc_per_node "${GPUS:-8}" -m mllmtool "$@" --fsdp true
