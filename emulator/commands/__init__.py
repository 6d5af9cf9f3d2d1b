"""The commands: each module adds its arguments in `configure` and names what runs as `run`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulator.settings import InvalidSetting, Settings
from emulator.settings_sources import CONFIG_VARIABLE, load_settings


class Refused(Exception):
    """A command cannot be done as it was called; the message is one line that says why and what to do."""


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file of settings (or {CONFIG_VARIABLE})")


def read_settings(values: Mapping[str, Any], config: Path | None) -> Settings:
    """The settings of a command: `values` from its options, the rest from the environment and TOML. Raises Refused."""
    named = config or os.environ.get(CONFIG_VARIABLE)
    try:
        return load_settings(values, os.environ, Path(named) if named else None)
    except InvalidSetting as error:
        raise Refused(str(error)) from None
