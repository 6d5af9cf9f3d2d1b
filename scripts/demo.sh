#!/bin/sh
# Roll out an example agent over the sums of examples/arithmetic.jsonl, and show what was captured:
#
#     scripts/demo.sh [MODEL [further options of `job-runtime-local rollout`]]
#
# Database and report stay in .demo (DEMO_FOLDER names another folder), to be looked at.
set -eu
cd "$(dirname "$0")/.."
model=${1:-scripted}
[ $# -eq 0 ] || shift
[ "$model" != scripted ] || model=scripted:examples/arithmetic_model.yaml # by chance right or wrong, as models are
folder=${DEMO_FOLDER:-.demo}
mkdir -p "$folder"
rm -f "$folder"/*
status=0
.venv/bin/job-runtime-local rollout examples/arithmetic.jsonl --agent python:examples.openai_tools:roll_out \
    --model "$model" --vllm-log "$folder/vllm.log" --database "$folder/demo.db" --report "$folder/rollouts.json" \
    --group-size 4 --concurrency 8 --rate none --temperature 0.5 --max-tokens 64 --wait 600 "$@" || status=$?
.venv/bin/job-runtime-local trajectories list --limit 12 --database "$folder/demo.db"
exit $status
