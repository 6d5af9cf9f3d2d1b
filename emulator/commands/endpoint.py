"""The server that a command asks: where it is, and what it says of itself."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from emulator.commands import Refused
from emulator.offline.environment import Place, credentials, no_proxy
from emulator.settings import Settings, is_loopback

#: Seconds that a server gets to say what it is.
_PATIENCE = 3.0


def add_endpoint_option(parser: argparse.ArgumentParser) -> None:
    """Add `--endpoint`."""
    parser.add_argument(
        "--endpoint", metavar="URL", help="the emulator (default: AWS_ENDPOINT_URL, else the port of the settings)"
    )


def endpoint_of(given: argparse.Namespace, settings: Settings) -> str:
    """The URL of the server that a command asks. Raises Refused for one that cannot be."""
    url = given.endpoint or os.environ.get("AWS_ENDPOINT_URL") or default_url(settings)
    return checked_url(url)


def default_url(settings: Settings) -> str:
    """Where a server with these settings is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{settings.port}"


def checked_url(url: str) -> str:
    """A URL of an emulator on this machine, without a slash at its end. Raises Refused."""
    if not is_local_url(url):
        raise Refused(f"--endpoint: {url!r} is not http://127.0.0.1:PORT or another address of this machine")
    return url.rstrip("/")


def is_local_url(url: str) -> bool:
    """Whether an emulator on this machine may have this URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme == "http" and is_loopback(parts.hostname or "") and not parts.path.strip("/")


def ask_server(url: str) -> Mapping[str, Any] | None:
    """The settings of the emulator there, as it tells them; None if there is none."""
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/_emulator/info", timeout=_PATIENCE) as answer:
            document = json.load(answer)
    except (OSError, URLError, ValueError):
        return None
    found = document.get("settings") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else None


def place_of(url: str, settings: Settings, told: Mapping[str, Any] | None = None) -> Place:
    """An emulator as its clients know it: as `told` by itself, else by the settings here."""
    place = Place(url=url, region=settings.region, account=settings.own_account, keys=credentials(settings))
    if told is None:
        return place
    return replace(place, region=told.get("region") or place.region, account=told.get("account") or place.account)


def set_agent_environment(url: str, region: str) -> Mapping[str, str]:
    """Have agents that are functions of this process find the runtime; what those in others need."""
    from emulator.trainer.agents import agent_environment

    found = {**agent_environment(url, region, os.environ), **no_proxy(os.environ)}
    os.environ.update(found)
    return found
