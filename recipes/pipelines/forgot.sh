#!/usr/bin/env bash
# "I have a fine-tuned checkpoint that forgot." Repair it in several ways, measure all of them on one
# suite, and name the one to ship.
#
#   recipes/pipelines/forgot.sh BASE TUNED ANCHORS SUITE OUT [MAX_LOSS]
#
# ANCHORS are samples of what the base could do, a few hundred of any general instruction data. TUNED
# must be made by `mllmtool finetune`, whose report names its training data; of another one give
# the data to `tailor` by --calibration. MAX_LOSS, by default 2pp, is allowed in each old quadrant.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
base=$1 tuned=$2 anchors=$3 suite=$4 out=$5 max_loss=${6:-2pp}

repaired=("tuned=$tuned")
for scale in 0.5 0.7 0.9; do
  repaired+=("$(mllmtool fuse --base "$base" --model "$tuned" --method wise-ft \
    --scale "$scale" --out "$out/wise-ft-$scale")")
done
for weight in 0.3 1; do
  repaired+=("$(mllmtool tailor --pre "$base" --sft "$tuned" --sparsity 1 --anchor "$anchors" \
    --anchor-weight "$weight" --out "$out/anchored-$weight")")
done

evals=$(mllmtool eval-matrix --suite "$suite" --base "$base" --out "$out/evals" \
  "${repaired[@]/#/--checkpoint=}")
echo "$evals/report.html"
mllmtool eval-matrix best --evals "$evals" --max-loss "$max_loss"
