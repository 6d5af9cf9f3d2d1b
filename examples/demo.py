"""Start an emulator, run the example agents against it over a small data set, and show what was captured.

make demo                       # the embedded scripted model
make demo MODEL=http://…        # any OpenAI-compatible server
make demo MODEL="vllm:MODEL …"  # vLLM, started for it
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples import boto3_streaming, openai_tools

DATA_SET = Path(__file__).with_name("arithmetic.jsonl")
JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/demo"

Agent = Callable[[dict[str, Any]], float]

#: The agents that are plain functions, too.
AGENTS: dict[str, Agent] = {"boto3": boto3_streaming.roll_out, "openai": openai_tools.roll_out}


def main() -> int:
    """Run the demo; exit status 1 if a rollout broke."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scripted", help="as of `job-runtime-local serve`")
    parser.add_argument("--vllm-python", help="as of `job-runtime-local serve`")
    parser.add_argument("--limit", type=int, help="only so many rows of the data set")
    parser.add_argument("--concurrency", type=int, default=4, help="rollouts at once (default: 4)")
    parser.add_argument("--patience", type=float, default=600, help="seconds until the model is ready (default: 600)")
    given = parser.parse_args()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "local")
    rows = [json.loads(line) for line in DATA_SET.read_text().splitlines()][: given.limit]
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model", given.model, "--database", f"{folder}/demo.db", "--vllm-log", f"{folder}/vllm.log"]
        options += ["--vllm-python", given.vllm_python] if given.vllm_python else []
        with emulator(options) as url:
            wait_until_ready(url, given.patience)
            failures = run(console, url, rows, given.concurrency)
            show(console, url)
    for failure in failures:
        console.print(failure, style="red", markup=False)
    return 1 if failures else 0


@contextmanager
def emulator(options: list[str]) -> Iterator[str]:
    """An emulator in a process of its own, on a free port; its URL."""
    command = [sys.executable, "-m", "emulator", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        if address is None:
            raise SystemExit(process.wait())
        try:
            yield address[0]
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(url: str, patience: float) -> None:
    """Wait for the model server; the emulator itself reports its progress on standard error."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with urlopen(f"{url}/_emulator/health") as answer:
                answer.read()
                return
        except HTTPError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"the model server was not ready in time: {error.read().decode()}") from None
        time.sleep(0.5)


def run(console: Console, url: str, rows: list[dict[str, str]], concurrency: int) -> list[str]:
    """Run each agent over each row; what went wrong, a line each."""
    work = [(name, agent, row) for row in rows for name, agent in AGENTS.items()]
    failures: list[str] = []
    rewards: list[float] = []
    columns = (TextColumn("rollouts"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[reward]}"))
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
        ThreadPoolExecutor(concurrency) as pool,
    ):
        task = progress.add_task("rollouts", total=len(work), reward="")

        def roll_out(name: str, agent: Agent, row: dict[str, str]) -> None:
            trajectory_id = f"{name}-{uuid4().hex[:8]}"
            try:
                rewards.append(agent(request(url, trajectory_id, row)))
            except Exception as error:
                failures.append(f"{trajectory_id}: {type(error).__name__}: {error}")
            mean = sum(rewards) / len(rewards) if rewards else 0.0
            progress.update(task, advance=1, reward=f"mean reward {mean:.2f}, failed {len(failures)}")

        for future in [pool.submit(roll_out, *item) for item in work]:
            future.result()
    return failures


def request(url: str, trajectory_id: str, row: dict[str, str]) -> dict[str, Any]:
    """A rollout request as the SageMaker SDK has it."""
    metadata = {"job_arn": JOB_ARN, "trajectory_id": trajectory_id, "endpoint": url, "region": "us-west-2"}
    return {"instance": row, "metadata": metadata, "inference_params": {"max_tokens": 128}}


def show(console: Console, url: str) -> None:
    """The table of trajectories, as the emulator stored them."""
    table = Table()
    for name in ("trajectory", "status", "turns", "tokens in", "tokens out", "reward"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("trajectory", "status") else "right")
    listing = fetch(f"{url}/_emulator/trajectories?limit=500")["trajectories"]
    for entry in sorted(listing, key=lambda entry: entry["created_at"]):
        trajectory = fetch(f"{url}/_emulator/trajectories/{JOB_ARN}/{entry['trajectory_id']}")
        usage = trajectory["usage"]
        reward = ", ".join(f"{value:g}" for value in entry["rewards"] or [])
        counts = (str(entry["turns"]), str(usage["prompt_tokens"]), str(usage["completion_tokens"]))
        table.add_row(entry["trajectory_id"], entry["status"], *counts, reward)
    console.print(table)


def fetch(url: str) -> dict[str, Any]:
    """A JSON document."""
    with urlopen(url) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


if __name__ == "__main__":
    sys.exit(main())
