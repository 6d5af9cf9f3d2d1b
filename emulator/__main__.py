"""`python -m emulator`: the same as `job-runtime-local`."""

import sys

from emulator.cli import main

sys.exit(main())
