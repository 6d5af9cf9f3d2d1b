"""Agents that do what the dataset's row says: well, or wrongly in one of many ways. As Lambda functions too."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
import urllib.request
from typing import Any

#: Seconds that an agent hangs which never answers; its test has long gone on then.
FOREVER = 60.0


def act(request: dict[str, Any]) -> Any:
    """One rollout, as `do` of its row says."""
    do = request["instance"].get("do", "well")
    runtime = Runtime(request["metadata"])
    if do in {"raise", "refuse", "exit", "return", "hang"}:
        return _without_sampling(do)
    for turn in range(request["instance"].get("turns", 2)):
        runtime.sample(f"{request['prompt']} {turn}")
    if do == "raise late":
        raise ValueError("after its turns")
    if do == "never seal":
        return None
    runtime.post("/complete-rollout", Status="failed" if do == "fail" else "ready")
    if do != "no reward":
        runtime.post("/update-reward", Rewards=request["instance"].get("rewards", [1.0]))
    if do == "raise at last":
        raise ValueError("when all was done")
    return {"done": True}


def _without_sampling(do: str) -> Any:
    match do:
        case "raise":
            raise ValueError("broken\nin two lines")
        case "refuse":
            return {"errorType": "Throttling", "errorMessage": "too many"}
        case "exit":
            os._exit(7)
        case "hang":
            time.sleep(FOREVER)
    return {"done": False}


async def act_asynchronously(request: dict[str, Any]) -> Any:
    """The same as a coroutine; it blocks its event loop while it samples."""
    await asyncio.sleep(0)
    return act(request)


async def end_the_program(request: dict[str, Any]) -> Any:
    """One that exits where its row says so."""
    if request["instance"].get("do") == "exit":
        raise SystemExit(3)
    return await asyncio.to_thread(act, request)


def act_later(request: dict[str, Any], _context: Any = None) -> dict[str, Any]:
    """Have somebody else do the rollout, and answer at once."""
    threading.Thread(target=act, args=(request,), daemon=True).start()
    return {"accepted": True}


def lambda_handler(event: dict[str, Any], context: Any) -> Any:
    """A Lambda function."""
    print(f"rollout {event['metadata']['rolloutId']} of {context.function_name}")
    assert context.get_remaining_time_in_millis() > 0
    return act(event)


def answer_with_what_is_no_json(_event: dict[str, Any], _context: Any) -> Any:
    """A Lambda function that returns what Lambda could not say."""
    return {1, 2}


def answer_at_length(event: dict[str, Any], _context: Any) -> Any:
    """A Lambda function that returns, or raises, more than Lambda would take, where its row says so."""
    match event["instance"].get("do"):
        case "much":
            return "x" * 40_000_000
        case "raise much":
            raise ValueError("x" * 40_000_000)
    return act(event)


def leave_somebody_behind(event: dict[str, Any], _context: Any) -> Any:
    """A Lambda function that starts a process, and does not wait for it."""
    process = subprocess.Popen(["sleep", str(FOREVER)], start_new_session=event["instance"]["session"])
    print(process.pid)
    return act(event)


class Runtime:
    """Job Runtime, to one rollout."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self._endpoint = metadata["endpoint"]
        job_arn = metadata.get("job_arn") or metadata["jobArn"]
        self._rollout = {"JobArn": job_arn, "TrajectoryId": metadata.get("trajectory_id") or metadata["rolloutId"]}

    def sample(self, prompt: str) -> None:
        """One turn."""
        body = {"model": "default", "messages": [{"role": "user", "content": prompt}]}
        headers = {f"X-Amzn-SageMaker-{name}": self._rollout[member] for name, member in
                   (("Job-Arn", "JobArn"), ("Trajectory-Id", "TrajectoryId"))}  # fmt: skip
        self._send("/v1/chat/completions", body, headers)

    def post(self, path: str, **members: Any) -> None:
        """A seal, or rewards."""
        self._send(path, {**self._rollout, **members}, {})

    def _send(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        request = urllib.request.Request(
            self._endpoint + path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
