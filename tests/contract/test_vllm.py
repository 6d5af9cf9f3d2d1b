"""What only a model that takes its time can show."""

from __future__ import annotations

import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from emulator.trajectory import TurnStatus

from .conftest import Emulator
from .test_contract import body

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("emulator", ["vllm"], indirect=True)
def test_a_client_that_leaves_in_the_middle_leaves_an_aborted_turn_and_a_model_that_answers_the_next(
    emulator: Emulator, runtime: Any, trajectory_id: str
) -> None:
    address = urlsplit(emulator.url)
    sent = body(stream=True, max_tokens=1500, ignore_eos=True)
    head = "".join(f"{name}: {value}\r\n" for name, value in emulator.headers(trajectory_id).items())
    with socket.create_connection((address.hostname or "", address.port or 0)) as client:
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}".encode())
        client.sendall(f"content-length: {len(sent)}\r\n\r\n".encode() + sent)
        received = b""
        while received.count(b"data: ") < 3:
            received += client.recv(65536)
    pause = threading.Event()
    for _ in range(200):
        if turns := emulator.turns(trajectory_id):
            break
        pause.wait(0.05)
    assert [turn.status for turn in turns] == [TurnStatus.ABORTED]
    assert turns[0].response.count(b"data: ") >= 3
    runtime.sample(JobArn=emulator.job_arn, TrajectoryId=trajectory_id, Body=body())["Body"].read()
