#!/bin/sh
# Make .venv: this package, editable, and what its tests need, at the versions of constraints.txt.
set -eu
python=${1:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "job-runtime-local needs Python 3.11 or newer; make PYTHON=… names another interpreter" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --constraint constraints.txt --editable . --group dev
touch .venv/.installed
