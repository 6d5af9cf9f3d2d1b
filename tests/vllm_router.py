"""vllm-router as a process of its own, before model servers of a test."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.clients.environments import program
from tests.stored import PATIENCE


@contextmanager
def vllm_router(model_servers: list[str], log: Path, *options: str) -> Iterator[str]:
    """The URL of a router before these model servers, once it finds all of them healthy."""
    port, metrics_port = _free_ports(2)
    url = f"http://127.0.0.1:{port}"
    command = [str(program("vllm-router", "vllm-router")), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(metrics_port), "--worker-startup-check-interval", "1"]
    with log.open("wb") as output:
        router = subprocess.Popen(
            [*command, "--worker-urls", *model_servers, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _is_healthy(url):
            assert router.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.02)
        yield url
    finally:
        router.kill()
        router.wait()


def _is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in listeners]
    for each in listeners:
        each.close()
    return ports
