"""`/_emulator/verdict`: how agents behaved."""

from __future__ import annotations

import math

from starlette.requests import Request

from emulator.job import JobArn
from emulator.management.emulator import Emulator, json_answer
from emulator.protocol.answer import Answer
from emulator.protocol.errors import ValidationException
from emulator.verdict import verdict

_PARAMETERS = ("job", "trajectory", "timeout")

#: Findings in one answer.
LIMIT = 1000


async def show_verdict(emulator: Emulator, request: Request) -> Answer:
    """GET: of one job or trajectory, or of all; what is not finished counts once `timeout` seconds have passed."""
    given = request.query_params
    for name in given:
        if name not in _PARAMETERS:
            raise ValidationException(f"There is no parameter {name!r}; there are {', '.join(_PARAMETERS)}")
    found = await verdict(
        emulator.store,
        emulator.conduct,
        job_arn=_job(given.get("job")),
        trajectory_id=given.get("trajectory"),
        rollout_timeout=_seconds(given.get("timeout", "0")),
    )
    return json_answer(found.document(LIMIT))


def _job(text: str | None) -> str | None:
    try:
        return None if text is None else str(JobArn.parse(text))
    except ValueError as error:
        raise ValidationException(f"job: {error}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e9:
        raise ValidationException(f"timeout: {text!r} is not a number of seconds")
    return seconds
