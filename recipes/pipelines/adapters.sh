#!/usr/bin/env bash
# "I have three adapters." Merge each into the base alone, fuse all of them in several ways, measure
# everything on one suite, and name the one to ship.
#
#   recipes/pipelines/adapters.sh BASE SUITE OUT ADAPTER ADAPTER [ADAPTER ...]
#
# ADAPTERs are folders of LoRA, DoRA or rsLoRA as peft writes them, all trained on BASE.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
base=$1 suite=$2 out=$3
adapters=("${@:4}")

made=()
for number in "${!adapters[@]}"; do
  made+=("$(mllmtool fuse --base "$base" --model "${adapters[$number]}" \
    --method task-arithmetic --scale 1 --out "$out/alone-$((number + 1))")")
done
for method in linear ties dare-ties; do
  made+=("$(mllmtool fuse --base "$base" "${adapters[@]/#/--model=}" --method "$method" \
    --out "$out/$method")")
done

evals=$(mllmtool eval-matrix --suite "$suite" --base "$base" --out "$out/evals" \
  "${made[@]/#/--checkpoint=}")
echo "$evals/report.html"
mllmtool eval-matrix best --evals "$evals" --max-loss 2pp
