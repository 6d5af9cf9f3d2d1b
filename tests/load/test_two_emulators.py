"""Two emulators on one PostgreSQL, and agents that send each request to either: whatever is killed, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from emulator.address import DatabaseURL
from emulator.store.database import check
from tests.load.agents import Work, roll_out
from tests.load.ledger import Ledger, audit
from tests.load.process import Load, load
from tests.postgresql import PostgreSQL, Stop, free_port
from tests.serving import Serving, serving
from tests.stored import iterate_stored

pytestmark = pytest.mark.load

ROLLOUTS, TURNS, CLIENTS = 1_500, 6, 64

#: When something is killed: after so much of the work.
MOMENTS = (0.15, 0.35, 0.55, 0.75)


class Emulators:
    """Two of them, each on a port of its own."""

    def __init__(self, database: DatabaseURL, model: str, folder: Path, stack: ExitStack) -> None:
        """They end with `stack`."""
        self._database, self._model, self._folder, self._stack = database, model, folder, stack
        self._ports = [free_port(), free_port()]
        self._running = [self._start(index) for index in range(2)]
        self.urls = tuple(each.url for each in self._running)

    def _start(self, index: int) -> Serving:
        log = self._folder / f"{index}.log"
        return self._stack.enter_context(serving(self._database, self._model, log=log, port=self._ports[index]))

    def restart(self, index: int) -> None:
        """SIGKILL one, and start it again."""
        self._running[index].kill()
        self._running[index] = self._start(index)


@contextmanager
def phase(name: str, urls: tuple[str, ...]) -> Iterator[Load[Ledger]]:
    """Agents at work."""
    work = Work(urls, name, seed=1, rollouts=ROLLOUTS, turns=TURNS, clients=CLIENTS, is_unruly=True)
    with load(roll_out, work) as agents:
        yield agents


def in_the_middle(agents: Load[Ledger], *actions: Callable[[], None]) -> Ledger:
    """What came of the work, in the middle of which all this happened."""
    for moment, action in zip(MOMENTS, actions, strict=False):
        agents.until(int(moment * ROLLOUTS * TURNS))
        action()
    assert agents.done < ROLLOUTS * TURNS
    return agents.result()


def test_agents_that_move_between_two_emulators_lose_nothing_when_one_is_killed_or_postgresql_restarts(
    postgresql: PostgreSQL,
    postgresql_database: DatabaseURL,
    tmp_path: Path,
    model: str,
    report: Callable[[str], None],
) -> None:
    def restart(how: Stop) -> Callable[[], None]:
        return lambda: postgresql.restart(how)

    ledgers: dict[str, Ledger] = {}
    with ExitStack() as stack:
        emulators = Emulators(postgresql_database, model, tmp_path, stack)
        with phase("undisturbed", emulators.urls) as agents:
            ledgers["undisturbed"] = agents.result()
        with phase("killed", emulators.urls) as agents:
            ledgers["emulators killed"] = in_the_middle(
                agents, lambda: emulators.restart(0), lambda: emulators.restart(1)
            )
        with phase("restarted", emulators.urls) as agents:
            ledgers["PostgreSQL restarted"] = in_the_middle(
                agents, restart("fast"), restart("immediate"), restart("fast"), restart("immediate")
            )
    everything = Ledger()
    for ledger in ledgers.values():
        everything.add(ledger)
    found = audit(everything, iterate_stored(postgresql_database))
    sealed = sum(told.completion is not None for told in everything.told.values())
    rewarded = sum(told.rewards is not None for told in everything.told.values())
    report(
        f"{everything.answered:,} samples, {sealed:,} seals, {rewarded:,} rewards "
        f"over two emulators on one PostgreSQL: {found}"
    )
    for name, ledger in ledgers.items():
        retries = ", ".join(f"{count} after {outcome}" for outcome, count in ledger.retries.most_common()) or "none"
        report(f"    {name}: {ledger.rate:,.0f} a second, the slowest {ledger.slowest:.1f} s; retries: {retries}")
    assert found.faults == []
    assert not ledgers["undisturbed"].retries
    assert check(postgresql_database) == []
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()
