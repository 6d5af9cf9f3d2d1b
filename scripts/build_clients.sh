#!/bin/sh
# Build .environments/awscli, datasets, sagemaker and vllm-router: what the tests run that needs other versions than .venv holds.
# With arguments, those that are named. One that is up to date is left as it is.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || {
    echo "build_clients.sh: there is no $uv; run 'make setup' first" >&2
    exit 1
}
for name in ${*:-awscli datasets sagemaker vllm-router}; do
    requirements=scripts/$name-requirements.txt
    environment=.environments/$name
    installed=$environment/requirements.txt # written last: an installation that was broken off has none
    if cmp -s "$requirements" "$installed" && "$environment/bin/python" -c '' 2>/dev/null; then
        continue
    fi
    echo "building $environment" >&2
    rm -rf "$environment"
    "$uv" venv --quiet --no-project --python .venv/bin/python "$environment"
    "$uv" pip install --quiet --python "$environment/bin/python" --requirements "$requirements"
    cp "$requirements" "$installed"
done
