"""What an agent's answer says: that it took the rollout, or that it refused."""

from __future__ import annotations

import json
from typing import Any

from emulator.trainer.agents import AgentFailed

#: Characters of an agent's own words that are quoted.
QUOTED = 300


def check_document(document: Any) -> None:
    """Raises AgentFailed if it says `errorType`, as a Lambda function that refuses does."""
    if isinstance(document, dict) and (kind := document.get("errorType")):
        message = document.get("errorMessage") or document.get("error") or "without a message"
        raise AgentFailed(f"the agent refused: {kind}: {shortened(str(message))}")


def check_reply(status: int, body: bytes) -> None:
    """Raises AgentFailed for a status that is no success, and for a body that says `errorType`."""
    try:
        document = json.loads(body) if body else None
    except (ValueError, RecursionError):
        document = None
    if not 200 <= status < 300:
        words = shortened(body.decode(errors="replace")) or "without a word"
        raise AgentFailed(f"the agent answered {status}: {words}")
    check_document(document)


def shortened(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= QUOTED else line[: QUOTED - 1] + "…"
