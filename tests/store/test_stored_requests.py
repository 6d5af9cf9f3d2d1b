"""What the database holds of requests, and what comes back: the exact bytes, from much less than all of them."""

from __future__ import annotations

import asyncio
import json
import random
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, func, select, text

from emulator.address import Address, DatabaseURL
from emulator.cli import main
from emulator.store import DatabaseError, OpenTrajectory, Store, StoreError, queries
from emulator.store.copy import copy_database
from emulator.store.database import check, reading
from emulator.store.libpq import PATIENT, engine
from emulator.store.schema import turns
from tests.conftest import JOB_ARN
from tests.deployments import KINDS, Kind, deployed
from tests.postgresql import PostgreSQL
from tests.store.rollouts import end_turn, handed_over, store_on, take_turn
from tests.store.test_prefixes import bodies
from tests.stored import all_stored, spelled, stored_turns

InFlight = tuple[OpenTrajectory, int, bytes]


@dataclass(frozen=True, slots=True)
class Steps:
    """What happens to a few trajectories."""

    sent: list[bytes]
    choices: st.DataObject

    def choose(self, *options: Any) -> Any:
        return self.choices.draw(st.sampled_from(options))


async def roll_out(address: Address, prefix: str, steps: Steps) -> dict[str, dict[int, bytes]]:
    """Send requests to one emulator or to two, whose turns end in any order, some together; what should be stored."""
    expected: dict[str, dict[int, bytes]] = {}
    in_flight: list[InFlight] = []
    rest = list(reversed(steps.sent))
    while rest or in_flight:
        async with AsyncExitStack() as stack:
            emulators = 2 if isinstance(address, DatabaseURL) else 1
            stores = [await stack.enter_async_context(store_on(address)) for _ in range(emulators)]
            while rest or in_flight:
                store = steps.choose(*stores)
                if rest and (not in_flight or steps.choose(True, True, False)):
                    name, body = f"{prefix} {steps.choose('a', 'b')}", rest.pop()
                    trajectory, number = await store.begin_turn(JOB_ARN, name)
                    in_flight.append((trajectory, number, body))
                    expected.setdefault(name, {})[number] = body
                    continue
                ending = steps.choices.draw(st.permutations(in_flight))[: steps.choose(1, 2, len(in_flight))]
                in_flight = [each for each in in_flight if each not in ending]
                await end_together(store, ending, fails=steps.choose(False, False, True))
                if steps.choose(*[False] * 5, True):  # they stop, and start again
                    for trajectory, number, _ in in_flight:
                        del expected[trajectory.key[1]][number]
                    in_flight = []
                    break
    return expected


async def end_together(store: Store, ending: list[InFlight], *, fails: bool) -> None:
    """Store turns as one batch. `fails`: together with one that cannot be stored."""
    writes = [await handed_over(end_turn(store, *each)) for each in ending]
    if fails:
        gone = OpenTrajectory(-1, ending[0][0].key, ending[0][0].status, 0)
        writes.append(await handed_over(end_turn(store, gone, 0, ending[0][2])))
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in outcomes] == [type(None)] * len(ending) + [StoreError] * fails


def test_whatever_is_sent_and_however_it_ends_comes_back_from_any_database(
    any_database: Address, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    examples = count()
    everything: dict[str, dict[int, bytes]] = {}

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies(least=3, most=20), st.data())
    def run(sent: list[bytes], choices: st.DataObject) -> None:
        expected = asyncio.run(roll_out(any_database, str(next(examples)), Steps(sent, choices)))
        everything.update(expected)
        with reading(any_database) as connection:
            for name, requests in expected.items():
                assert both_ways(connection, name) == requests

    run()
    assert check(any_database) == []
    for copy in (tmp_path / "copy.db", DatabaseURL(postgresql.create_database())):
        copy_database(any_database, copy, lambda _copied, _total: None)
        assert all_stored(copy) == all_stored(any_database)
        with reading(copy) as connection:
            assert {name: both_ways(connection, name) for name in everything} == everything


def both_ways(connection: Connection, name: str) -> dict[int, bytes]:
    """The requests of a trajectory, read together and one by one."""
    (trajectory,) = queries.find_trajectories(connection, name)
    together = {turn.number: turn for turn in queries.turns_of(connection, trajectory)}
    assert together == {number: queries.find_turn(connection, trajectory, number) for number in together}
    return {number: turn.request for number, turn in together.items()}


#: What a hand, or a fault of the disk, does to turn 1: its base is not there, is too short, or was stored after it.
DAMAGES = [
    "DELETE FROM turns WHERE number = 0",
    "UPDATE turns SET request = '12345' WHERE number = 0",
    "UPDATE turns SET id = id + 100 WHERE number = 0",
    "UPDATE turns SET base = 1 WHERE number = 1",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_request_that_cannot_be_restored_is_found_and_never_made_up(
    any_database: Address, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body() -> None:
        async with store_on(any_database) as store:
            for _ in range(2):
                await take_turn(store, "t")

    asyncio.run(body())
    assert check(any_database) == []
    change(any_database, damage)
    (problem,) = check(any_database)
    assert re.fullmatch(
        rf"turns: t \({JOB_ARN}\): turn 1: what its request shares with turn [01] is not there", problem
    )
    with reading(any_database) as connection:
        (trajectory,) = queries.find_trajectories(connection, "t")
        with pytest.raises(DatabaseError, match="turn 1: what its request shares"):
            queries.turns_of(connection, trajectory)
        with pytest.raises(DatabaseError, match="turn 1: what its request shares"):
            queries.find_turn(connection, trajectory, 1)
    assert main(["db", "check", "--database", spelled(any_database)]) == 1
    assert capsys.readouterr().out == f"{problem}\n"
    assert main(["trajectories", "show", "t", "--database", spelled(any_database)]) == 2
    assert "turn 1: what its request shares" in capsys.readouterr().err


def change(address: Address, statement: str) -> None:
    it = engine(address, PATIENT) if isinstance(address, DatabaseURL) else create_engine(f"sqlite:///{address}")
    with it.begin() as connection:
        connection.execute(text(statement))
    it.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_of_growing_prompts_takes_at_most_a_quarter_of_its_raw_bytes(
    kind: Kind, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    text_ = random.Random(1)
    messages: list[dict[str, str]] = []
    raw = 0
    with deployed(kind, tmp_path, postgresql, model="scripted") as deployment, deployment.client() as client:
        for _ in range(40):
            messages.append({"role": "user", "content": text_.randbytes(4096).hex()})
            body = json.dumps({"model": "default", "messages": messages, "max_tokens": 8}).encode()
            raw += len(body)
            assert client.sample("t", body).status == 200
        with reading(deployment.database) as connection:
            held = connection.scalar(select(func.sum(func.length(turns.c.request)))) or 0
        assert held < raw / 4
        assert stored_turns(deployment.database, "t")[-1].request == body
