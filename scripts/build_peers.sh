#!/bin/sh
# Build .environments/bench-NAME for each of the benchmark's peers that come from PyPI: scripts/peers/NAME.txt says what
# belongs into it. With arguments, those that are named. One that is up to date is left as it is; one that cannot be
# built is named, and the others are built all the same: the benchmark goes without it and says so.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || {
    echo "build_peers.sh: there is no $uv; run 'make setup' first" >&2
    exit 1
}

build() { # REQUIREMENTS ENVIRONMENT
    rm -rf "$2"
    "$uv" venv --quiet --no-project --python .venv/bin/python "$2" &&
        "$uv" pip install --quiet --compile-bytecode --python "$2/bin/python" --requirements "$1" &&
        cp "$1" "$2/requirements.txt" # written last: an installation that was broken off has none
}

for name in ${*:-$(cd scripts/peers && ls | sed 's/\.txt$//')}; do
    requirements=scripts/peers/$name.txt
    environment=.environments/bench-$name
    if cmp -s "$requirements" "$environment/requirements.txt" && "$environment/bin/python" -c '' 2>/dev/null; then
        continue
    fi
    echo "building $environment" >&2
    build "$requirements" "$environment" || echo "build_peers.sh: $name could not be built; going on without it" >&2
done
