"""AWS's configuration file for a program: the profiles of its user by their names, and nothing of what they hold.

A script may ask for one (`boto3.Session(profile_name="prod")`). Its keys would be a person's, and to find them a
program could be run (`credential_process`), or a token renewed (SSO).
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from emulator.offline.environment import Place

#: The variables that name the two files, and where they are otherwise.
FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}


def write_profiles(place: Place, environment: Mapping[str, str], path: Path) -> None:
    """Write the file: whichever profile is taken, it is the emulator's."""
    key_id, secret = place.keys
    lines = [f"region = {place.region}", f"aws_access_key_id = {key_id}", f"aws_secret_access_key = {secret}"]
    names = dict.fromkeys(["default", *_profiles(environment)])
    sections = [f"[{_section(name)}]\n" + "\n".join(lines) for name in names]
    path.touch(mode=0o600)
    path.write_text("\n\n".join(sections) + "\n")


def _section(name: str) -> str:
    return name if name == "default" else f"profile {shlex.quote(name)}"


def _profiles(environment: Mapping[str, str]) -> Iterator[str]:
    """The names of the user's profiles; those of a file that cannot be read are none."""
    for variable, otherwise in FILES.items():
        parser = configparser.RawConfigParser(strict=False, default_section="")
        with suppress(OSError, UnicodeDecodeError, configparser.Error, RuntimeError):  # a user without a home
            parser.read_string(Path(environment.get(variable) or otherwise).expanduser().read_text())
        for section in parser.sections():
            kind, _, name = section.partition(" ")
            if variable == "AWS_SHARED_CREDENTIALS_FILE":
                yield section
            elif kind == "profile":
                with suppress(ValueError):
                    yield "".join(shlex.split(name)[:1])
