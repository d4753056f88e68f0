#!/usr/bin/env bash
# Several machines, started once on each:
#   NODES=4 HEAD=10.0.0.1:29500 bash recipes/launch/many-nodes.sh finetune --recipe ... --out ...
# --out and the samples must lie on a file system that all machines share; the first process writes.
set -euo pipefail
exec torchrun --nnodes "${NODES:?how many machines}" --nproc_per_node "${GPUS:-8}" \
  --rdzv_backend c10d --rdzv_endpoint "${HEAD:?HOST:PORT of one of them}" \
  --rdzv_id "${RUN:-mllmtool}" -m mllmtool "$@"
