"""`job-runtime-local env`: print what to export so that programs find the emulator."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from emulator.commands import Refused, add_config_option, read_settings
from emulator.commands.endpoint import ask_server, checked_url, default_url, place_of
from emulator.offline.environment import client_variables, sdk_configuration

EPILOG = """\
In a shell: eval "$(job-runtime-local env --write sagemaker.yaml)"

The SageMaker SDK's configuration file (--write) names a default bucket and a role, and turns its telemetry off. Some
hosts are hard-coded in the SDK; `job-runtime-local run` leads those to the emulator too, and sets all of this itself.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--endpoint", metavar="URL", help="the emulator (default: the port of the settings)")
    parser.add_argument("--format", choices=("shell", "dotenv", "json"), default="shell", help="(default: shell)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="make the SageMaker SDK's configuration file, too")
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print the variables. Raises Refused."""
    settings = read_settings({}, given.config)
    url = checked_url(given.endpoint or default_url(settings))
    place = place_of(url, settings, ask_server(url))
    if given.write is not None:
        try:
            given.write.write_text(sdk_configuration(place))
        except OSError as error:
            raise Refused(f"{given.write}: {error.strerror}") from None
    configuration = given.write.absolute() if given.write is not None else None
    print(_FORMATS[given.format](client_variables(place, os.environ, configuration)))
    return 0


def _shell(variables: Mapping[str, str | None]) -> str:
    removed = [name for name, value in variables.items() if value is None]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value is not None]
    return "\n".join([f"unset {' '.join(removed)}", *lines])


def _dotenv(variables: Mapping[str, str | None]) -> str:
    return "\n".join(f"{name}={_quoted(value)}" for name, value in variables.items() if value is not None)


def _quoted(value: str) -> str:
    """As the readers of such files agree: where there is need of quotes, those that expand nothing."""
    if shlex.quote(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False) if "'" in value else f"'{value}'"


def _json(variables: Mapping[str, str | None]) -> str:
    return json.dumps({name: value for name, value in variables.items() if value is not None}, indent=2)


_FORMATS = {"shell": _shell, "dotenv": _dotenv, "json": _json}
