"""Agents under load: rollouts from the first sample to the reward, retried as AWS's clients retry."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.load.connections import Connections, Reply
from tests.load.conversation import Conversation, digest, model_answer
from tests.load.ledger import Attempt, Ledger, Told
from tests.load.process import Progress
from tests.raw_client import CHAT, COMPLETE, REWARD, SAMPLE, STREAM

#: Seconds until an agent that gets no answer gives up, which fails the test.
PATIENCE = 90.0

#: Seconds before a request is sent again: at most, the first time and later.
PAUSES = (0.05, 0.5)


@dataclass(frozen=True, slots=True)
class Work:
    """A fixed amount of it."""

    urls: tuple[str, ...]  #: emulators; each request goes to one of them
    name: str  #: what the names of its trajectories begin with
    seed: int
    rollouts: int
    turns: int  #: of each
    clients: int  #: rollouts that are under way at once
    is_unruly: bool = False  #: agents ask several things at once, hang up, and seal while a sample is under way


async def roll_out(progress: Progress, work: Work) -> Ledger:
    """Do all of it."""
    ledger, connections = Ledger(), Connections()
    numbers = iter(range(work.rollouts))
    started = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for _ in range(work.clients):
            group.create_task(_client(work, numbers, ledger, connections, progress))
    ledger.seconds = asyncio.get_running_loop().time() - started
    connections.close()
    return ledger


async def _client(
    work: Work, numbers: Iterator[int], ledger: Ledger, connections: Connections, progress: Progress
) -> None:
    for number in numbers:
        name = f"{work.name}-{number}"
        choose = random.Random(f"{work.seed}-{name}")
        agent = _Agent(name, work.urls, choose, connections, ledger, progress)
        if work.is_unruly:
            await agent.roll_out_unruly(work.turns)
        else:
            await agent.roll_out(work.turns)


@dataclass(slots=True)
class _Agent:
    """One rollout."""

    name: str
    urls: tuple[str, ...]
    choose: random.Random
    connections: Connections
    ledger: Ledger
    progress: Progress
    told: Told = field(default_factory=Told)
    conversation: Conversation = field(init=False)

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.name)
        self.ledger.told[self.name] = self.told

    async def roll_out(self, turns: int) -> None:
        """One turn after the other; some rollouts are sealed then, and some of these rewarded."""
        for step in range(turns):
            await self._turn(step)
        if self.choose.random() < 0.7:
            await self._seal()
            if self.choose.random() < 0.7:
                await self._reward()

    async def roll_out_unruly(self, turns: int) -> None:
        """As agents do that work in parallel, or are badly written."""
        step = 0
        while turns:
            at_once = min(turns, self.choose.choice([1, 1, 2, 3]))
            if self.choose.random() < 0.1:
                await self._ask(self.choose.choice(self.urls), step, patience=self.choose.uniform(0, 0.02))
            await asyncio.gather(*(self._turn(step) for _ in range(at_once)))
            turns -= at_once
            step += 1
        if self.choose.random() < 0.2:
            return
        if self.choose.random() < 0.3:
            await asyncio.gather(self._seal(), self._ask(self.choose.choice(self.urls), step, is_late=True))
        else:
            await self._seal()
        if self.choose.random() < 0.2:
            refused = await self._insist(lambda url: self._ask(url, step + 1))
            if refused.status != 400:
                self.ledger.wrong.append(f"{self.name}: a sample after the seal: {refused.outcome}")
        if self.choose.random() < 0.8:
            await self._reward()

    async def _turn(self, step: int) -> None:
        reply = await self._insist(lambda url: self._ask(url, step))
        if not reply.is_acknowledged:
            self.ledger.wrong.append(f"{self.name}: a sample: {reply.outcome} {reply.body!r}")

    async def _ask(self, url: str, step: int, *, patience: float = PATIENCE, is_late: bool = False) -> Reply:
        """Send a request for a turn, once, and enter what came of it."""
        choose = self.choose
        marker = f"{self.name}/{step}/{len(self.told.attempts)}"
        body = self.conversation.request(marker, stream=choose.random() < 0.3)
        attempt = Attempt(step, digest(body), is_late)
        self.told.attempts.append(attempt)
        sent = asyncio.get_running_loop().time()
        reply = await self.connections.call(url, choose.choice([SAMPLE, STREAM, CHAT]), body, self.name, patience)
        if reply.is_acknowledged:
            self.ledger.slowest = max(self.ledger.slowest, asyncio.get_running_loop().time() - sent)
            attempt.is_answered = True
            self.progress.value += 1
            self.conversation.heard(body)
            if reply.body != model_answer(body).body:
                self.ledger.wrong.append(f"{marker}: was answered {reply.body!r}")
        return reply

    async def _seal(self) -> None:
        completion = self.choose.choice(["ready", "ready", "failed"])
        token = f"{self.name} is sealed"
        document = {"TrajectoryId": self.name, "Status": completion, "ClientToken": token}
        if await self._change(COMPLETE, document):
            self.told.completion = completion

    async def _reward(self) -> None:
        rewards = [self.choose.random()] * self.choose.choice([1, self.told.answered])
        document = {"TrajectoryId": self.name, "Rewards": rewards, "ClientToken": f"{self.name} is rewarded"}
        # Turns may count whose answers the agent never saw, and a late one may not. Then one reward for all is right.
        unsure = any(attempt.is_late or not attempt.is_answered for attempt in self.told.attempts)
        if await self._change(REWARD, document, may_be_refused=unsure and len(rewards) > 1):
            self.told.rewards = rewards
            return
        rewards = rewards[:1]
        if await self._change(REWARD, {**document, "Rewards": rewards}):
            self.told.rewards = rewards

    async def _change(self, path: str, document: Mapping[str, object], *, may_be_refused: bool = False) -> bool:
        body = json.dumps(document).encode()
        reply = await self._insist(lambda url: self.connections.call(url, path, body, patience=PATIENCE))
        if reply.is_acknowledged:
            return True
        if not (may_be_refused and reply.status == 400):
            self.ledger.wrong.append(f"{self.name}: {path}: {reply.outcome} {reply.body!r}")
        return False

    async def _insist(self, ask: Callable[[str], Awaitable[Reply]]) -> Reply:
        """Ask one emulator or another until one answers."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        pause, longest = PAUSES
        while not (reply := await ask(self.choose.choice(self.urls))).is_final:
            self.ledger.retries[reply.outcome] += 1
            assert asyncio.get_running_loop().time() < deadline, f"{self.name}: {reply.outcome} for {PATIENCE:g} s"
            await asyncio.sleep(self.choose.uniform(0, pause))
            pause = min(2 * pause, longest)
        return reply
