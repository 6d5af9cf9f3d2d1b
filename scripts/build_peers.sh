#!/bin/sh
# Build the benchmark's peers: nginx and vllm-router as the tests have them, and .environments/bench-NAME for each
# scripts/peers/NAME.txt. One that is up to date is left as it is; one that cannot be built is named, and the others are
# built all the same: the benchmark goes without it and says so.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || {
    echo "build_peers.sh: there is no $uv; run 'make setup' first" >&2
    exit 1
}

build() { # REQUIREMENTS ENVIRONMENT
    if cmp -s "$1" "$2/requirements.txt" && "$2/bin/python" -c '' 2>/dev/null; then return; fi
    echo "building $2" >&2
    rm -rf "$2"
    "$uv" venv --quiet --no-project --python .venv/bin/python "$2" &&
        "$uv" pip install --quiet --compile-bytecode --python "$2/bin/python" --requirements "$1" &&
        cp "$1" "$2/requirements.txt" # written last: an installation that was broken off has none
}

go_on() { echo "build_peers.sh: going on without $1" >&2; }

scripts/build_nginx.sh || go_on nginx
scripts/build_clients.sh vllm-router || go_on vllm-router
for requirements in scripts/peers/*.txt; do
    name=$(basename "$requirements" .txt)
    build "$requirements" ".environments/bench-$name" || go_on "$name"
done
