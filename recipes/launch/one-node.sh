#!/usr/bin/env bash
# One machine, all of its GPUs: bash recipes/launch/one-node.sh finetune --recipe ... --out ...
# DDP: each process holds the model. --batch stays the samples of a whole step over all processes.
set -euo pipefail
exec torchrun --standalone --nproc_per_node "${GPUS:-8}" -m mllmtool "$@"
