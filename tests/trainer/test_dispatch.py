"""Rollouts from dispatch to result, with agents that do well and agents that fail, whichever way the emulator is reached."""  # noqa: E501

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from emulator.address import Address
from emulator.settings import Settings
from emulator.trainer.agents import AgentFailed, find_agent
from emulator.trainer.dispatch import DispatchEnded, Dispatcher, Limits
from emulator.trainer.rollouts import FailureText, RolloutResult
from emulator.trainer.runtime import RuntimeGone
from emulator.trajectory import Status
from tests.conftest import JOB_ARN
from tests.stored import spelled
from tests.trainer.playing import MEMORY, QUICK, a_runtime, alone, play, played, rollouts_of

ACT = "python:tests.trainer.agents:act"


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_rollout_is_over_when_its_reward_is_there(kind: str) -> None:
    ((result, recorded),) = played(ACT, [{"turns": 3, "rewards": [0.0, 0.25, 0.5]}], kind=kind)
    assert result.failure is None
    assert (result.reward, result.rewards) == (0.75, (0.0, 0.25, 0.5))
    assert len(result.turns) == 3
    assert result.prompt_tokens > 0 < result.response_tokens
    assert (recorded.status, recorded.completion) == (Status.REWARD_RECEIVED, Status.READY)


def test_an_emulator_on_postgresql_does_as_well(postgresql_database: Address) -> None:
    async def work() -> list[RolloutResult]:
        settings = Settings(port=0, database=spelled(postgresql_database), log_level="error")
        async with a_runtime("local", settings) as runtime:
            return await play(runtime, ACT, [{}, {"do": "fail"}], group_size=3)

    results = alone(work())
    assert [result.reward for result in results] == [1.0] * 3 + [None] * 3


def test_both_ways_to_an_emulator_find_the_same() -> None:
    rows: list[dict[str, Any]] = [{"turns": 2}, {"do": "fail"}, {"do": "no reward"}, {"do": "return"}]
    local, remote = (played(ACT, rows, kind=kind) for kind in ("local", "remote"))
    assert [recorded for _, recorded in local] == [recorded for _, recorded in remote]
    assert [result.failure for result, _ in local] == [result.failure for result, _ in remote]


@pytest.mark.parametrize(
    ("do", "text", "reason"),
    [
        ("raise", FailureText.NO_SAMPLES, "the agent raised ValueError: broken in two lines"),
        ("refuse", FailureText.NO_SAMPLES, "the agent refused: Throttling: too many"),
        ("return", FailureText.NO_SAMPLES, "the agent returned"),
        ("hang", FailureText.NO_SAMPLES, "not done within 1 s; the agent had not answered"),
        ("fail", FailureText.AGENT_FAILED, "CompleteRollout(failed) after 2 turns"),
        ("never seal", FailureText.NO_REWARD, "the agent returned; never sealed, after 2 turns"),
        (
            "raise late",
            FailureText.NO_REWARD,
            "the agent raised ValueError: after its turns; never sealed, after 2 turns",
        ),
        ("no reward", FailureText.NO_REWARD, "the agent returned; sealed, without a reward, after 2 turns"),
    ],
)
def test_an_agent_that_fails_gets_the_text_of_a_real_job_and_the_reason(
    do: str, text: FailureText, reason: str
) -> None:
    ((result, recorded),) = played(ACT, [{"do": do}], timeout=1.0 if do == "hang" else 20.0)
    assert result.failure is not None
    assert (result.failure.text, result.failure.reason) == (text, reason)
    assert (result.reward, result.rewards) == (None, ())
    # Nothing can come of it later: what its agent has not sealed was sealed as failed.
    assert recorded.completion is (Status.READY if do == "no reward" else Status.FAILED)


def test_what_an_agent_says_at_last_does_not_take_the_reward_back() -> None:
    ((result, _),) = played(ACT, [{"do": "raise at last"}])
    assert (result.failure, result.reward) == (None, 1.0)


def test_a_reward_without_a_sample_is_none() -> None:
    ((result, recorded),) = played(ACT, [{"turns": 0}])
    assert recorded.rewards == (1.0,)
    assert result.failure is not None
    assert result.failure.text is FailureText.NO_SAMPLES


def test_each_retry_is_a_new_trajectory() -> None:
    ((result, _),) = played(ACT, [{"do": "raise"}], retries=3)
    assert len({attempt.trajectory_id for attempt in result.attempts}) == 4
    assert all(attempt.failure for attempt in result.attempts)


class Flaky:
    """An agent that succeeds at its second attempt."""

    answers_when_done = True

    def __init__(self) -> None:
        self.asked = 0
        self._real = find_agent(ACT)

    async def start(self, patience: float) -> None:
        await self._real.start(patience)

    async def roll_out(self, request: Any, trajectory_id: str) -> None:
        self.asked += 1
        if self.asked == 1:
            raise AgentFailed("not yet")
        await self._real.roll_out(request, trajectory_id)

    async def aclose(self) -> None:
        await self._real.aclose()


def test_a_retry_that_succeeds_counts() -> None:
    async def work() -> RolloutResult:
        agent = Flaky()
        await agent.start(1)
        async with a_runtime("local") as runtime:
            await runtime.register_job(JOB_ARN)
            limits = Limits(rate=None, timeout=20)
            dispatcher = Dispatcher(agent=agent, runtime=runtime, job_arn=JOB_ARN, limits=limits)
            return await dispatcher.run(rollouts_of([{}])[0])

    result = alone(work())
    assert [attempt.failure and attempt.failure.reason for attempt in result.attempts] == ["not yet", None]
    assert (result.reward, result.failure) == (1.0, None)


class Counting:
    """An agent that says how many are with it at once, and when they came."""

    answers_when_done = True

    def __init__(self) -> None:
        self.at_once = self.most = 0
        self.came: list[float] = []

    async def start(self, patience: float) -> None:
        """There."""

    async def roll_out(self, request: Any, trajectory_id: str) -> None:
        self.came.append(time.monotonic())
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1

    async def aclose(self) -> None:
        """Gone."""


@pytest.mark.parametrize("how", ["one after the other", "all at once"])
def test_no_more_are_in_flight_than_allowed(how: str) -> None:
    agent = Counting()

    async def work() -> None:
        async with a_runtime("local") as runtime:
            await runtime.register_job(JOB_ARN)
            limits = Limits(rate=None, retries=0, concurrency=5)
            dispatcher = Dispatcher(agent=agent, runtime=runtime, job_arn=JOB_ARN, limits=limits)
            await asyncio.gather(*(dispatcher.run(rollout) for rollout in rollouts_of([{}] * 20)))

    alone(work())
    assert agent.most == 5
    assert len(agent.came) == 20


def test_new_trajectories_begin_at_their_rate_retries_included() -> None:
    agent = Counting()

    async def work() -> None:
        async with a_runtime("local") as runtime:
            await runtime.register_job(JOB_ARN)
            limits = Limits(rate=50, retries=1)
            dispatcher = Dispatcher(agent=agent, runtime=runtime, job_arn=JOB_ARN, limits=limits)
            await asyncio.gather(*(dispatcher.run(rollout) for rollout in rollouts_of([{}] * 10)))

    alone(work())
    assert len(agent.came) == 20
    assert agent.came[-1] - agent.came[0] > 19 / 50 - 0.05  # a lower bound: no machine is too slow for it


def test_told_to_end_it_starts_nothing_new_and_lets_the_rest_finish() -> None:
    async def work() -> tuple[list[RolloutResult], int]:
        agent = Flaky()
        agent.asked = 1
        await agent.start(1)
        async with a_runtime("local") as runtime:
            await runtime.register_job(JOB_ARN)
            limits = Limits(rate=None, concurrency=2, timeout=20)
            dispatcher = Dispatcher(agent=agent, runtime=runtime, job_arn=JOB_ARN, limits=limits)
            running = [asyncio.create_task(dispatcher.run(each)) for each in rollouts_of([{}] * 6)]
            await running[0]
            dispatcher.end()
            done = await asyncio.gather(*running, return_exceptions=True)
        results = [each for each in done if isinstance(each, RolloutResult)]
        return results, sum(isinstance(each, DispatchEnded) for each in done)

    results, ended = alone(work())
    assert len(results) + ended == 6
    assert ended >= 2
    assert all(result.failure is None for result in results)


def test_an_interrupted_trajectory_that_its_agent_settled_counts_and_is_not_done_again() -> None:
    async def work() -> tuple[list[RolloutResult], RolloutResult, RolloutResult]:
        async with a_runtime("local") as runtime:
            (before,) = await play(runtime, ACT, [{}])
            await runtime.register(JOB_ARN, "open", group="0", instance="{}")
            agent = find_agent(ACT)
            await agent.start(1)
            dispatcher = Dispatcher(agent=agent, runtime=runtime, job_arn=JOB_ARN, limits=QUICK)
            (rollout,) = rollouts_of([{}])
            settled = await dispatcher.run(rollout, before.trajectory_id)
            anew = await dispatcher.run(rollout, "open")
            was_open = await runtime.recorded(JOB_ARN, "open")
            assert was_open is not None
            assert was_open.completion is Status.FAILED
            unknown = await dispatcher.run(rollout, "never registered")
            return [before, settled], anew, unknown

    same, anew, unknown = alone(work())
    assert same[0].trajectory_id == same[1].trajectory_id
    assert same[0].rewards == same[1].rewards
    assert anew.failure is unknown.failure is None
    assert len({each.trajectory_id for each in (*same, anew, unknown)}) == 3


def test_an_emulator_that_is_gone_ends_the_run() -> None:
    async def work() -> None:
        async with a_runtime("remote") as runtime:
            pass
        await play(runtime, ACT, [{}])

    with pytest.raises(RuntimeGone, match="were closed"):
        alone(work())


def test_agents_see_rollouts_of_a_registered_job_alone() -> None:
    """The server has --trajectories dispatched and --jobs strict: whatever the agents sampled was registered."""
    assert (MEMORY.trajectories, MEMORY.jobs) == ("dispatched", "strict")
    results = played(ACT, [{"prompt": "a"}, {"prompt": "b"}], group_size=3)
    assert [(result.row, result.member) for result, _ in results] == [(r, m) for r in (0, 1) for m in (0, 1, 2)]
    assert all(result.failure is None for result, _ in results)
    assert threading.active_count() < 50
