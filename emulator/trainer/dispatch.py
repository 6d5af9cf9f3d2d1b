"""Dispatching rollouts to an agent: so many at once, so many new a second, each until it is settled or out of time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from uuid import uuid4

from emulator.trainer.agents import Agent, AgentFailed
from emulator.trainer.payloads import Destination, InferenceParameters, Spelling, rollout_request
from emulator.trainer.rollouts import Attempt, Recorded, Rollout, RolloutResult, failure_of
from emulator.trainer.runtime import Runtime, RuntimeGone
from emulator.trajectory import Status, is_settled

#: Seconds that an agent gets to answer when its rollout is settled, before its connection is cut.
LAST_WORDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a run. The defaults are the real trainer's."""

    concurrency: int = 96  #: rollouts at once
    rate: float | None = 5.0  #: new trajectories a second; None: as many as there can be
    timeout: float = 600.0  #: seconds that one attempt may take
    retries: int = 3  #: attempts after the first one, each a new trajectory


class DispatchEnded(Exception):
    """No new rollouts are started any more."""


async def _nobody(_rollout: Rollout, _trajectory_id: str) -> None:
    """Who wants to know of attempts, if nobody does."""


@dataclass(slots=True, kw_only=True)
class Dispatcher:
    """Does rollouts, any number of them at once, within its limits. Belongs to one event loop."""

    agent: Agent
    runtime: Runtime
    job_arn: str
    limits: Limits = field(default_factory=Limits)
    inference: InferenceParameters = field(default_factory=InferenceParameters)
    spelling: Spelling = Spelling.BOTH
    group_prefix: str = ""  #: what the names of groups and trajectories begin with
    #: Awaited before the agent is asked for an attempt.
    announce: Callable[[Rollout, str], Awaitable[None]] = _nobody
    _slots: asyncio.Semaphore = field(init=False)
    _ending: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _next_start: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Make the slots."""
        self._slots = asyncio.Semaphore(self.limits.concurrency)

    def end(self) -> None:
        """Start no new rollouts, and none again; what is in flight goes on."""
        self._ending.set()

    async def run(self, rollout: Rollout, interrupted: str | None = None) -> RolloutResult:
        """Do one rollout: attempt after attempt, until one succeeds or there have been enough.

        `interrupted`: its trajectory in a run before this one that nobody saw end; it counts if its agent settled it.
        Raises DispatchEnded where another attempt would be needed and none may start, RuntimeGone.
        """
        async with self._slots:
            if interrupted is not None and (result := await self._picked_up(rollout, interrupted)):
                return result
            attempts: list[Attempt] = []
            while True:
                if not await self._may_start():
                    raise DispatchEnded
                attempt, recorded = await self._attempt(rollout)
                attempts.append(attempt)
                if attempt.failure is None or len(attempts) > self.limits.retries:
                    return _result(rollout, attempts, recorded)

    async def _may_start(self) -> bool:
        """Wait for this attempt's turn; False if nothing may start any more."""
        if self.limits.rate is not None:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 1 / self.limits.rate
            with suppress(TimeoutError):
                async with asyncio.timeout(start - now):
                    await self._ending.wait()
        return not self._ending.is_set()

    async def _picked_up(self, rollout: Rollout, trajectory_id: str) -> RolloutResult | None:
        """What an interrupted attempt came to, if it came to something; else it is given up, and begun anew."""
        recorded = await self.runtime.recorded(self.job_arn, trajectory_id)
        if recorded is None:
            return None
        if recorded.status is Status.READY and not self.agent.answers_when_done:
            with suppress(TimeoutError):  # an agent that lives on may be about to send the reward
                async with asyncio.timeout(min(LAST_WORDS, self.limits.timeout)):
                    await self.runtime.settled(self.job_arn, trajectory_id)
        attempt, recorded = await self._account(trajectory_id, "the run was interrupted", 0.0)
        return _result(rollout, [attempt], recorded) if attempt.failure is None else None

    async def _attempt(self, rollout: Rollout) -> tuple[Attempt, Recorded]:
        row = rollout.row
        group = f"{self.group_prefix}{row.number}"
        trajectory_id = f"{group}-{rollout.member}-{uuid4().hex}"
        instance = json.dumps(row.instance, separators=(",", ":"))
        await self.announce(rollout, trajectory_id)
        await self.runtime.register(self.job_arn, trajectory_id, group=group, instance=instance)
        began_at = time.monotonic()
        try:
            reason = await self._play(rollout, trajectory_id)
        except asyncio.CancelledError:
            with suppress(RuntimeGone):
                await self.runtime.give_up(self.job_arn, trajectory_id)
            raise
        return await self._account(trajectory_id, reason, time.monotonic() - began_at)

    async def _play(self, rollout: Rollout, trajectory_id: str) -> str:
        """Ask the agent, and wait until it is done; what ended it."""
        to = Destination(self.job_arn, trajectory_id, self.runtime.endpoint, self.runtime.region)
        request = rollout_request(rollout.row, to, self.inference, self.spelling)
        settling = asyncio.create_task(self.runtime.settled(self.job_arn, trajectory_id, is_new=True))
        asking = asyncio.create_task(self.agent.roll_out(request, trajectory_id))
        try:
            async with asyncio.timeout(self.limits.timeout):
                await asyncio.wait((asking, settling), return_when=asyncio.FIRST_COMPLETED)
                if not settling.done():
                    await asking
                    if self.agent.answers_when_done:
                        return "the agent returned"
                    await settling
                settling.result()
                await asyncio.wait((asking,), timeout=LAST_WORDS)
        except AgentFailed as error:
            return str(error)
        except TimeoutError:
            # Whichever of the two was waited for is cancelled by now.
            if settling.done() and not settling.cancelled():
                return "settled"
            has_answered = asking.done() and not asking.cancelled()
            state = "the agent had answered" if has_answered else "the agent had not answered"
            return f"not done within {self.limits.timeout:g} s; {state}"
        finally:
            asking.cancel()
            settling.cancel()
            await asyncio.gather(asking, settling, return_exceptions=True)
        return "settled"

    async def _account(self, trajectory_id: str, reason: str, seconds: float) -> tuple[Attempt, Recorded]:
        """What an attempt came to. One that its agent has not sealed is sealed here: nothing may come of it later."""
        given_up = False
        recorded = await self.runtime.recorded(self.job_arn, trajectory_id)
        if recorded is not None and not is_settled(recorded.status):
            given_up = await self.runtime.give_up(self.job_arn, trajectory_id)
            recorded = await self.runtime.recorded(self.job_arn, trajectory_id)
        if recorded is None:
            raise RuntimeGone(f"trajectory {trajectory_id} is gone: was the emulator reset?")
        failure = failure_of(recorded, reason, given_up=given_up)
        return Attempt(trajectory_id, failure, seconds, given_up), recorded


def _result(rollout: Rollout, attempts: list[Attempt], recorded: Recorded) -> RolloutResult:
    rewards = () if attempts[-1].failure else recorded.rewards
    return RolloutResult(rollout.row.number, rollout.member, tuple(attempts), rewards, recorded.completed_turns)


async def roll_out_all(
    dispatcher: Dispatcher,
    rollouts: Iterable[Rollout],
    finished: Callable[[RolloutResult], Awaitable[None]],
    interrupted: Mapping[tuple[int, int], str] | None = None,
) -> None:
    """Do them all, in their order as far as there are slots; `finished` is awaited with each result.

    `interrupted`: trajectories of a run before this one, by the rollout's key; see `Dispatcher.run`. Returns early
    when the dispatcher was told to end. Raises RuntimeGone.
    """
    waiting = iter(rollouts)

    async def work(first: Rollout) -> None:
        for rollout in chain((first,), waiting):
            try:
                result = await dispatcher.run(rollout, (interrupted or {}).get(rollout.key))
            except DispatchEnded:
                return
            await finished(result)

    try:
        async with asyncio.TaskGroup() as tasks:
            for rollout in islice(waiting, dispatcher.limits.concurrency):
                tasks.create_task(work(rollout))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # each of the others broke for the same reason, or was cancelled
