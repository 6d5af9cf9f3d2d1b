"""Asking `/_emulator/`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx2

from emulator.server import Server


def trajectory_url(server: Server, job_arn: str, trajectory_id: str) -> str:
    return f"{server.url}/_emulator/trajectories/{job_arn}/{quote(trajectory_id, safe='')}"


def turn_url(server: Server, job_arn: str, trajectory_id: str, number: int, side: str) -> str:
    return f"{server.url}/_emulator/turns/{job_arn}/{quote(trajectory_id, safe='')}/{number}/{side}"


def listed(server: Server, **parameters: object) -> dict[str, Any]:
    answer = httpx2.get(f"{server.url}/_emulator/trajectories", params={k: str(v) for k, v in parameters.items()})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def ids(page: dict[str, Any]) -> list[str]:
    return [each["trajectory_id"] for each in page["trajectories"]]


def assert_error(answer: httpx2.Response, status: int, name: str) -> str:
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (status, name), answer.text
    assert answer.headers["x-amzn-requestid"]
    message: str = answer.json()["Message"]
    return message
