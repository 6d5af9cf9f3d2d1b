"""`job-runtime-local rollout`: play the trainer's part, rollouts of a dataset against an agent."""

from __future__ import annotations

import argparse
import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.commands import Refused, add_config_option, read_settings
from emulator.commands.serve import add_option
from emulator.settings_sources import setting_fields

if TYPE_CHECKING:
    from emulator.settings import Settings
    from emulator.settings_sources import SettingField
    from emulator.trainer.dispatch import Limits
    from emulator.trainer.payloads import InferenceParameters

#: Seconds that rollouts in flight get to end when the run is interrupted.
GRACE = 10.0

EPILOG = """\
agents:
  {targets}

The exit status is 0 when every rollout has its reward, 1 when some failed, 2 when the run could not be begun, and 130
when it was interrupted; the report accounts for every rollout in each case but the third. Ctrl-C lets those in flight
end (for {grace:g} s), a second one does not. Whatever ended a run: the same command with --resume goes on with it.

Without --endpoint an emulator runs in this process, and takes every option of `job-runtime-local serve`:
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the run's own options, and those of `serve`."""
    from emulator.trainer.agents import TARGETS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Play the trainer's part: send rollouts of a dataset to an agent, and account for each."
    parser.epilog = EPILOG.format(targets=TARGETS.replace("\n", "\n  "), grace=GRACE)
    parser.add_argument(
        "dataset", metavar="DATASET", help="a .parquet, .jsonl, .json or .csv file, a folder of them, or s3://…"
    )
    parser.add_argument("--agent", required=True, metavar="AGENT", help="who does the rollouts: see below")
    parser.add_argument("--endpoint", metavar="URL", help="an emulator that runs (default: one in this process)")
    parser.add_argument("--job", metavar="ARN", help="whose rollouts they are (default: a new job)")
    rollouts = parser.add_argument_group("rollouts")
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    seconds: dict[str, Any] = {"type": float, "metavar": "SECONDS"}
    rollouts.add_argument("--group-size", default=1, **number, help="rollouts a row (default: 1)")
    rollouts.add_argument("--limit", **number, help="only so many rows")
    rollouts.add_argument("--seed", **number, help="rows in an order drawn at random (default: the dataset's)")
    rollouts.add_argument("--concurrency", default=96, **number, help="rollouts at once (default: 96)")
    rollouts.add_argument("--rate", default="5", metavar="N|none", help="new trajectories a second (default: 5)")
    rollouts.add_argument("--timeout", default=600.0, **seconds, help="for one attempt (default: 600)")
    rollouts.add_argument(
        "--retries", default=3, **number, help="attempts after the first, each a new trajectory (default: 3)"
    )
    rollouts.add_argument("--wait", default=60.0, **seconds, help="until agent and model are ready (default: 60)")
    request = parser.add_argument_group("what the agent is sent")
    request.add_argument("--payload", choices=("both", "documented", "sdk"), default="both", help="(default: both)")
    request.add_argument("--temperature", type=float, default=1.0, metavar="T", help="(default: 1)")
    request.add_argument("--top-p", type=float, default=1.0, metavar="P", help="(default: 1)")
    request.add_argument("--max-tokens", default=4096, **number, help="(default: 4096)")
    report = parser.add_argument_group("the account")
    report.add_argument("--report", type=Path, default=Path("rollouts.json"), metavar="FILE",
                        help="the JSON report, with a journal beside it until all is over")  # fmt: skip
    report.add_argument("--resume", action="store_true", help="go on with the run whose report that is to be")
    report.add_argument("--success-threshold", type=float, default=1.0, metavar="REWARD",
                        help="what a rollout needs to count as passed (default: 1)")  # fmt: skip
    report.add_argument("--pass-k", default="1,2,4,8,16,32", metavar="K,K…",
                        help="of pass@k and pass^k, up to the group size (default: 1,2,4,8,16,32)")  # fmt: skip
    add_config_option(parser)
    serving = parser.add_argument_group("the emulator in this process")
    for each in serve_settings():
        add_option(serving, each)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do the rollouts; the exit status. Raises Refused."""
    from emulator.commands.rollout_run import Run
    from emulator.commands.serve import event_loop
    from emulator.trainer.datasets import DatasetError, choose_rows, read_dataset

    limits, inference, ks = _checked(given)
    settings = None if given.endpoint else _settings(given)
    try:
        rows = choose_rows(read_dataset(given.dataset), seed=given.seed, limit=given.limit)
    except DatasetError as error:
        raise Refused(str(error)) from None
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(Run(given, settings, rows, limits, inference, ks).run())


def _checked(given: argparse.Namespace) -> tuple[Limits, InferenceParameters, tuple[int, ...]]:
    """Raises Refused."""
    from emulator.job import JobArn
    from emulator.trainer.dispatch import Limits
    from emulator.trainer.payloads import InferenceParameters

    _check_numbers(given)
    try:
        rate = None if given.rate == "none" else float(given.rate)
    except ValueError:
        rate = 0.0
    if rate is not None and not 0 < rate < float("inf"):
        raise Refused(f"--rate: {given.rate!r} is neither a number above 0 nor 'none'")
    try:
        ks = tuple(sorted({int(k) for k in given.pass_k.split(",")}))
    except ValueError:
        ks = (0,)
    if min(ks) < 1:
        raise Refused(f"--pass-k: {given.pass_k!r} is no list of whole numbers like 1,2,4")
    if given.job is not None:
        try:
            JobArn.parse(given.job)
        except ValueError as error:
            raise Refused(f"--job: {error}") from None
    limits = Limits(concurrency=given.concurrency, rate=rate, timeout=given.timeout, retries=given.retries)
    return limits, InferenceParameters(given.temperature, given.top_p, given.max_tokens), ks


def serve_settings() -> list[SettingField]:
    """Those of `serve` that this command takes: it does not run jobs."""
    return [each for each in setting_fields() if each.group != "jobs"]


def _check_numbers(given: argparse.Namespace) -> None:
    """Raises Refused."""
    for name, least in (("group_size", 1), ("limit", 1), ("concurrency", 1), ("retries", 0), ("max_tokens", 1)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise Refused(f"--{name.replace('_', '-')}: {value} is less than {least}")
    for name in ("timeout", "wait"):
        if not 0 < getattr(given, name) < float("inf"):
            raise Refused(f"--{name}: {getattr(given, name):g} is not a number of seconds")
    for name in ("temperature", "top_p", "success_threshold"):
        if not math.isfinite(getattr(given, name)):
            raise Refused(f"--{name.replace('_', '-')}: {getattr(given, name):g} is no number")


def _settings(given: argparse.Namespace) -> Settings:
    """Of the emulator in this process: a free port unless an option names one, and no lines of good news."""
    values = {each.name: getattr(given, each.name) for each in serve_settings()}
    values["port"] = "0" if given.port is None else given.port
    values["log_level"] = given.log_level or "warning"
    return read_settings(values, given.config)
