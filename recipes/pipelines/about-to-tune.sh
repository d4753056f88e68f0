#!/usr/bin/env bash
# "I am about to fine-tune." Mix a share of general data in, look at the plan, train with the suite
# watched, and measure what was kept.
#
#   recipes/pipelines/about-to-tune.sh BASE SAMPLES GENERAL SUITE OUT [finetune's flags ...]
#
# SAMPLES are of the new task, GENERAL of anything that the base should keep, at least as many: half of
# what is trained on is general. Without flags it trains as recipes/finetune/safe-full.yaml says.
# OUT/plan.json is what training would do; look at it before hours of it.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
base=$1 samples=$2 general=$3 suite=$4 out=$5
flags=("${@:6}")
recipe=$(dirname "$0")/../finetune/safe-full.yaml

mix=$(mllmtool mix-data --source "target=$samples:0.5" --source "general=$general:0.5" \
  --all-of target --out "$out/mix")
train=(finetune --recipe "$recipe" --model "$base" --samples "$mix/samples.jsonl" "${flags[@]}")
mllmtool "${train[@]}" --dry-run > "$out/plan.json"
tuned=$(mllmtool "${train[@]}" --out "$out/tuned")
evals=$(mllmtool eval-matrix --suite "$suite" --base "$base" --checkpoint "$tuned" \
  --out "$out/evals")
echo "$evals/report.html"
mllmtool eval-matrix best --evals "$evals" --max-loss 2pp
