"""Run a program beside an example that serves HTTP; `APP` in its arguments is the example's URL.

python -m tests.sdk.with_app EXAMPLE FOLDER COMMAND …
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.examples.agents import serving


def main(example: str, folder: str, *command: str) -> int:
    """Its exit status."""
    with serving(example, Path(folder)) as url:
        return subprocess.run([part.replace("APP", url) for part in command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
