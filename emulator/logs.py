"""Log lines on standard error, as text or JSON. What is written while a request is served says which one."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from emulator.calls import OK, find_call
from emulator.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Log lines go to standard error, in the format and from the level on that the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for noisy in ("uvicorn.error", "aiosqlite", "asyncio", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """A line for people; a request's facts stand at its end, in brackets."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line, before any traceback."""
        facts = " ".join(f"{name}={_plain(value)}" for name, value in _facts().items())
        return super().formatMessage(record) + (f" [{facts}]" if facts else "")


def _facts() -> dict[str, Any]:
    """What is known so far of the request that is served here."""
    call = find_call()
    if call is None:
        return {}
    facts = {
        "request_id": call.request_id.decode(),
        "operation": call.operation,
        "job_arn": call.job_arn,
        "trajectory_id": call.trajectory_id,
        "turn": call.turn,
        "status": call.status,
        "error": None if call.code == OK else call.code,
        "seconds": _rounded(call.seconds),
        "model_seconds": _rounded(call.model_seconds),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _plain(value: object) -> str:
    """A value that no client can break a line with, or pass off as another fact."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
