"""The examples as their users run them: each in a process of its own, in the environment that holds its packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.clients.environments import client_variables, program
from tests.examples.offline import LOOKED_UP

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: Those that serve HTTP, and the environment of those that `.venv` cannot hold.
SERVERS: Mapping[str, str | None] = {
    "boto3_streaming": None,
    "openai_agents": None,
    "agentcore_app": None,
    "strands_handler": "sagemaker",
    "langchain_agent": "sagemaker",
}


@contextmanager
def serving(name: str, folder: Path) -> Iterator[str]:
    """An example that serves HTTP; its URL. It may look up nothing but this machine."""
    environment = SERVERS[name]
    python = sys.executable if environment is None else str(program(environment, "python"))
    log = folder / f"{name}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [python, "-m", "tests.examples.offline", f"examples.{name}:app"],
            stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=example_variables(),
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, log.read_text()
            yield url
        finally:
            process.terminate()
            process.wait()
    assert LOOKED_UP not in log.read_text()


def example_variables() -> dict[str, str]:
    """What an example sees; Python finds the repository's modules."""
    variables = client_variables() | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # some of these packages take 20 s to compile
    return variables


def commands(name: str) -> list[list[str]]:
    """The commands that an example's documentation begins with, as words, without what a shell makes of them."""
    documentation = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()))
    assert documentation is not None
    lines = [line.partition("  #")[0] for line in documentation.splitlines()]
    return [line.split() for line in lines if line.startswith(("uvicorn ", "job-runtime-local ", "pytest "))]
