"""Rollouts as the SageMaker SDK does them: a program for `.environments/sagemaker`, apart from the tests' process.

    python -m tests.clients.sagemaker_rollouts REPORT JOB_ARN MODE=URL…

Does every rollout of `sagemaker_agents` against each of the servers, with MODE-NAME as its trajectory id, and writes a
JSON report of what each returned or raised, and of every host that was looked up and is not this machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.clients.look_ups import loopback_only
from tests.clients.question import QUESTION


def request(job_arn: str, trajectory_id: str, endpoint: str) -> dict[str, Any]:
    """A rollout request in the spelling of the SDK."""
    return {
        "instance": {"prompt": QUESTION},
        "metadata": {
            "job_arn": job_arn,
            "trajectory_id": trajectory_id,
            "endpoint": endpoint,
            "region": os.environ["AWS_REGION"],
        },
        "inference_params": {"temperature": 0.5, "max_tokens": 200, "top_p": 0.75},
    }


def documented_request(job_arn: str, trajectory_id: str, endpoint: str) -> dict[str, Any]:
    """The same in the spelling of the service's documentation."""
    return {
        "prompt": QUESTION,
        "metadata": {
            "jobArn": job_arn,
            "rolloutId": trajectory_id,
            "endpoint": endpoint,
            "region": os.environ["AWS_REGION"],
        },
        "inferenceParams": {"temperature": 0.5, "maxTokens": 200, "topP": 0.75},
    }


def outcome(rollout: Callable[[dict[str, Any]], Any], payload: dict[str, Any]) -> dict[str, Any]:
    """What a rollout returned or raised."""
    try:
        returned = rollout(payload)
        if isinstance(returned, Awaitable):
            returned = asyncio.run(_finish(returned))
    except Exception as error:
        return {"returned": None, "raised": f"{type(error).__name__}: {error}", "where": traceback.format_exc()}
    return {"returned": returned, "raised": None, "where": None}


async def _finish(work: Awaitable[Any]) -> Any:
    return await work


def main(report: str, job_arn: str, *servers: str) -> None:
    """Do every rollout against every server, and write the report."""
    looked_up: list[str] = []
    socket.getaddrinfo = loopback_only(looked_up)
    from tests.clients.sagemaker_agents import DOCUMENTED, ROLLOUTS  # now: an import may look something up, too

    rollouts: dict[str, Any] = {}
    for mode, _, url in (server.partition("=") for server in servers):
        rollouts[mode] = {}
        for rollout in ROLLOUTS:
            name: str = rollout.__name__
            spelling = documented_request if rollout in DOCUMENTED else request
            rollouts[mode][name] = outcome(rollout, spelling(job_arn, f"{mode}-{name}", url))
    Path(report).write_text(json.dumps({"rollouts": rollouts, "looked_up": looked_up}))


if __name__ == "__main__":
    main(*sys.argv[1:])
