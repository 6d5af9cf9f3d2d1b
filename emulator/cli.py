"""The command line. A command is a module of `emulator.commands`, imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from emulator import __version__
from emulator.commands import Refused

#: What a shell reads as "this cannot be done as you called it".
REFUSED = 2

COMMANDS = {
    "serve": "run the emulator",
    "run": "run a program that finds the emulator in place of AWS, and reaches nothing else",
    "env": "print what to export so that programs find the emulator",
    "job": "the jobs of a running emulator: list, show, logs, stop, delete, create",
    "agent": "the agents of a running emulator: list, check",
    "rollout": "play the trainer's part: rollouts of a dataset against an agent",
    "trajectories": "look at what was captured: list, show",
    "export": "write what was captured as JSON Lines or parquet: native, openai, trl, tokens",
    "script": "check the rules of the scripted model",
    "cassette": "look at recorded answers: show, check",
    "db": "look after the database: upgrade, backup, check, copy",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="job-runtime-local",
        description="A local, offline emulator of Amazon SageMaker Job Runtime.",
        epilog="`job-runtime-local COMMAND --help` says more of each.",
    )
    parser.add_argument("--version", action="version", version=f"job-runtime-local {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    name = next((word for word in given if word in COMMANDS), None)
    for command, help_text in COMMANDS.items():
        subparser = commands.add_parser(command, help=help_text, description=help_text.capitalize() + ".")
        if command == name:  # the others stay unread: what they import is not needed
            importlib.import_module(f"emulator.commands.{command}").configure(subparser)
    namespace = parser.parse_args(given)
    try:
        status: int = namespace.run(namespace)
    except Refused as error:
        print(f"job-runtime-local: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
