"""`job-runtime-local agent`: the agents that a running emulator's jobs ask: list them, check them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from emulator.commands import Refused, add_config_option, read_settings
from emulator.commands.endpoint import add_endpoint_option, ask_server, endpoint_of, place_of, set_agent_environment
from emulator.offline.environment import Place
from emulator.terminal import prepare_output, visible

if TYPE_CHECKING:
    from emulator.trainer.rollouts import Row

#: What an agent that was given no prompt is asked.
PROMPT = "What is 6 * 7?"

#: How the agent of all ARNs without one of their own is shown.
ALL_OTHERS = "all others"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    from emulator.trainer.agents import TARGETS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    targets = TARGETS.replace("\n", "\n  ")
    parser.epilog = f"AGENT is an ARN that the emulator has an agent for, or an agent itself:\n  {targets}"
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="who stands for which ARN", description="Who stands for which ARN.")
    listing.set_defaults(run=_list)
    about = "is it ready, and does it do a rollout?"
    check = actions.add_parser("check", help=about, description=f"Of each agent: {about} It counts for no job.")
    check.add_argument("agent", nargs="?", metavar="AGENT", help="an ARN, or an agent (default: all that there are)")
    check.add_argument("--prompt", default=PROMPT, metavar="TEXT", help=f"(default: {PROMPT})")
    check.add_argument("--dataset", metavar="FILE", help="ask the first row of a data set, all of it, in its place")
    check.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="of the rollout (default: 60)")
    check.add_argument("--wait", type=float, default=10.0, metavar="SECONDS", help="until it is ready (default: 10)")
    check.set_defaults(run=_check)
    for each in (listing, check):
        each.add_argument("--json", action="store_true", help="JSON Lines")
        add_endpoint_option(each)
        add_config_option(each)


def _asked(given: argparse.Namespace) -> tuple[Place, dict[str, str]]:
    """The emulator, and its agents by their ARNs. Raises Refused."""
    settings = read_settings({}, given.config)
    url = endpoint_of(given, settings)
    told = ask_server(url)
    if told is None:
        raise Refused(f"there is no emulator at {url}: `job-runtime-local serve` starts one, --endpoint names another")
    return place_of(url, settings, told), dict(map(_split, told.get("agents", ())))


def _split(text: str) -> tuple[str, str]:
    """An ARN, nothing for all others, and the agent: as `--agent` has it."""
    arn, _, target = text.partition("=") if text.startswith("arn:") else ("", "=", text)
    return arn, target


def _list(given: argparse.Namespace) -> int:
    _, agents = _asked(given)
    prepare_output()
    for arn, target in agents.items():
        shown = arn or ALL_OTHERS
        print(json.dumps({"arn": shown, "agent": target}) if given.json else f"{visible(shown)}  {visible(target)}")
    if not agents:
        print("no agents; `serve --agent ARN=AGENT` names one", file=sys.stderr)
    return 0


def _check(given: argparse.Namespace) -> int:
    for name in ("timeout", "wait"):
        if not 0 < getattr(given, name) < float("inf"):
            raise Refused(f"--{name}: {getattr(given, name):g} is not a number of seconds")
    place, agents = _asked(given)
    if given.agent is None:
        targets = list(dict.fromkeys(agents.values()))
    elif given.agent.startswith("arn:"):
        targets = [agents.get(given.agent) or agents.get("") or ""]
    else:
        targets = [given.agent]
    if not targets or not targets[0]:
        raise Refused(f"no agent stands for {given.agent or 'any ARN'}: `serve --agent ARN=AGENT` names one")
    row = _row(given)
    found = [asyncio.run(_checked(target, place, given, row)) for target in targets]
    prepare_output()
    for each in found:
        print(json.dumps(each) if given.json else _line(each))
    return 0 if all(each["failure"] is None for each in found) else 1


def _row(given: argparse.Namespace) -> Row:
    """What agents are asked. Raises Refused."""
    from emulator.trainer.datasets import DatasetError, read_dataset
    from emulator.trainer.rollouts import Row

    if given.dataset is None:
        return Row(0, given.prompt, {"prompt": given.prompt})
    try:
        return read_dataset(given.dataset)[0]
    except DatasetError as error:
        raise Refused(str(error)) from None


async def _checked(target: str, place: Place, given: argparse.Namespace, row: Row) -> dict[str, Any]:
    """Wait for an agent, and do one rollout, which counts for no job. Raises Refused."""
    from emulator.commands.rollout_runtime import running_runtime
    from emulator.trainer.agents import AgentContext, AgentFailed, InvalidAgent, find_agent
    from emulator.trainer.dispatch import Dispatcher, Limits
    from emulator.trainer.rollouts import Rollout
    from emulator.trainer.runtime import RuntimeGone

    found: dict[str, Any] = {"agent": target, "healthy": False, "failure": None}
    job = f"arn:aws:sagemaker:{place.region}:{place.account}:job/AgentRFT/check-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    environment = set_agent_environment(place.url, place.region)
    try:
        agent = find_agent(target, AgentContext(environment, given.timeout, _show))
        async with running_runtime(place.url, given.wait) as runtime:
            try:
                await agent.start(given.wait)
                found["healthy"] = True
                await runtime.register_job(job)
                limits = Limits(concurrency=1, rate=None, timeout=given.timeout, retries=0)
                dispatcher = Dispatcher(agent=agent, runtime=runtime, job_arn=job, limits=limits)
                result = await dispatcher.run(Rollout(row, 0))
            finally:
                await agent.aclose()
    except AgentFailed as error:
        return found | {"failure": str(error)}
    except (InvalidAgent, RuntimeGone) as error:
        raise Refused(str(error)) from None
    failure = result.failure
    return found | {
        "failure": None if failure is None else f"{failure.text} ({failure.reason})",
        "trajectory_id": result.attempts[-1].trajectory_id,
        "turns": len(result.turns),
        "reward": result.reward,
    }


def _show(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)


def _line(found: Mapping[str, Any]) -> str:
    if found["failure"] is not None:
        state = "ready, but" if found["healthy"] else "not ready:"
        return f"{visible(found['agent'])}  {state} {visible(found['failure'])}"
    done = f"{found['turns']} turns, reward {found['reward']:g}, trajectory {found['trajectory_id']}"
    return f"{visible(found['agent'])}  ready; one rollout: {done}"
