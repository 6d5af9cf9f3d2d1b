"""Agents for `python:tests.sdk.agents:NAME`."""

from __future__ import annotations

import threading
from typing import Any

from tests.sdk import lambda_function


def arithmetic(request: dict[str, Any]) -> None:
    """The Lambda function, in the emulator's process."""
    lambda_function.handler(request, None)


def never_samples(_request: dict[str, Any]) -> None:
    """Answers without having sampled."""


def waits(_request: dict[str, Any]) -> None:
    """Is busy for longer than anybody waits."""
    threading.Event().wait(300)
