"""`JobRuntime`: an emulator for tests, and all that a test asks of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import uuid4

from sqlalchemy import Connection

from emulator.faults import Faults, GivenFault, fault_of
from emulator.settings import InvalidSetting, Settings
from emulator.settings_sources import load_settings
from emulator.store import queries
from emulator.store.queries import TrajectoryFilter, TrajectoryRecord
from emulator.testing.clients import DefaultSession, boto3_client
from emulator.testing.environment import environment, variables
from emulator.testing.model import Model
from emulator.testing.rollout import Rollout
from emulator.testing.server import ServerThread, default_settings
from emulator.testing.trajectories import Trajectory
from emulator.trajectory import Status
from emulator.verdict import Verdict, verdict

P = ParamSpec("P")
T = TypeVar("T")

#: The job of rollouts for which a test names none.
JOB_ARN = "arn:aws:sagemaker:{region}:123456789012:job/AgentRFT/test"

#: Seconds between two looks at what a test waits for.
LOOK = 0.005


class NoSuchTrajectory(LookupError):
    """The emulator holds no such trajectory, or not exactly one; the message says which there are."""


class DatabaseInUse(Exception):
    """The database that a test would clear holds something."""


class JobRuntime:
    """A running emulator, with the environment variables by which clients find it.

    `with JobRuntime() as runtime:` serves in a thread of its own, on a free port, keeps what it captures in memory, and
    needs no event loop. Settings are those of `job-runtime-local serve`, as keywords. One runtime may serve many tests:
    `reset` makes it as new.
    """

    def __init__(self, settings: Settings | None = None, **given: Any) -> None:
        """Settings whole, or by name. Raises InvalidSetting, CannotListen."""
        if settings is not None and given:
            raise InvalidSetting(
                f"settings are given whole, and by name ({', '.join(given)}): leave out one of the two"
            )
        self.settings = settings_of(given) if settings is None else settings
        self._thread = ServerThread(self.settings)
        self._exits = ExitStack()
        self.url = self._thread.server.url  #: where it listens
        self.region = self.settings.region
        self.boto3_session = DefaultSession()
        self.job_arn = JOB_ARN.format(region=self.region)  #: the job of rollouts for which a test names none
        self.model = Model(self._thread.server.app.model_server, self.settings.shown_model)  #: what it says

    def __enter__(self) -> JobRuntime:
        """Start, and set the environment variables. Raises DatabaseError, ModelServerError, DatabaseInUse."""
        self.start()
        self._exits.enter_context(environment(self.environment))
        self._exits.enter_context(self.boto3_session.lent())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop, and restore the environment. Raises FailedReplies, UnexpectedRequests, if nothing else was."""
        self._exits.close()
        self.stop()
        if error is None:
            self.model.check()

    def __repr__(self) -> str:
        return f"<job_runtime at {self.url}>"

    def start(self) -> None:
        """Start, and leave the environment alone. Raises DatabaseError, ModelServerError, DatabaseInUse."""
        self._thread.start()
        try:
            if self.settings.durability != "memory" and self._read(queries.list_trajectories, EVERY, limit=1):
                raise DatabaseInUse(
                    f"{self.settings.shown_database} holds trajectories, which tests would clear: name another database"
                )
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it serves: started, and not stopped."""
        return self._thread.is_running

    def stop(self) -> None:
        """Break off what is under way, and stop; again: nothing."""
        if not self.is_running:
            return
        if "client" in self.__dict__:
            self.client.close()
        self._thread.stop(at_once=True)

    def reset(self) -> None:
        """Forget everything: what was captured, replies, faults; and break off what is under way."""
        self._thread.call(self._thread.server.app.reset)
        self.model.reset()

    @property
    def endpoint_url(self) -> str:
        """`url`, as boto3 calls it."""
        return self.url

    @property
    def base_url(self) -> str:
        """The OpenAI-style paths."""
        return f"{self.url}/v1"

    @property
    def environment(self) -> dict[str, str | None]:
        """The variables that lead an agent here; None: it must not be set."""
        return variables(self.url, self.settings)

    @cached_property
    def client(self) -> Any:
        """A boto3 client, made once and used again. Raises MissingPackage."""
        return boto3_client(self.url, self.settings)

    def new_rollout(
        self,
        prompt: str | None = None,
        *,
        instance: Mapping[str, Any] | None = None,
        trajectory_id: str | None = None,
        job_arn: str | None = None,
        group: str | None = None,
    ) -> Rollout:
        """Register a rollout as a dispatcher does, to hand it to an agent. `instance`: the dataset's row."""
        if prompt is not None:
            instance = {"prompt": prompt, **(instance or {})}
        rollout = Rollout(
            job_arn=job_arn or self.job_arn,
            trajectory_id=trajectory_id or str(uuid4()),
            endpoint=self.url,
            region=self.region,
            instance=instance,
            group=group,
        )
        self._thread.call(partial(self._register, rollout))
        return rollout

    @property
    def faults(self) -> Faults:
        """The faults that calls suffer: none, unless settings or the test say so."""
        return self._thread.server.app.faults

    def fault(self, kind: str, **options: Any) -> GivenFault:
        """Have calls suffer a fault; which there are, `Fault` and docs/faults.md say. Raises InvalidFault."""
        return self.faults.add(fault_of({"kind": kind, **options}))

    def verdict(self, which: Rollout | str | None = None, *, rollout_timeout: float = 0.0) -> Verdict:
        """How the agent behaved: in one trajectory, or in all. What is not finished by then counts as left.

        Raises NoSuchTrajectory.
        """
        app = self._thread.server.app
        trajectory_id = which.trajectory_id if isinstance(which, Rollout) else which
        job_arn = which.job_arn if isinstance(which, Rollout) else None
        found = self._thread.call(
            partial(
                verdict,
                app.store,
                app.conduct,
                job_arn=job_arn,
                trajectory_id=trajectory_id,
                rollout_timeout=rollout_timeout,
            )
        )
        if trajectory_id is not None and found.trajectories == 0:
            self.trajectory(which)  # which says what there is instead
        return found

    @property
    def trajectories(self) -> list[Trajectory]:
        """All of them, as they stand now, oldest first."""
        return self._read(lambda connection: [_whole(connection, each) for each in _all(connection)])

    def trajectory(self, which: str | Rollout | None = None, *, job_arn: str | None = None) -> Trajectory:
        """One, as it stands now: by its id, or by its rollout; the only one if none is named.

        Raises NoSuchTrajectory.
        """
        if isinstance(which, Rollout):
            return self._read(_only, which.trajectory_id, which.job_arn)
        return self._read(_only, which, job_arn)

    def wait_for(
        self,
        which: str | Rollout | None,
        until: Status | str | Callable[[Trajectory], object] = Status.REWARD_RECEIVED,
        *,
        timeout: float = 10.0,
    ) -> Trajectory:
        """Wait for an agent that works elsewhere: until the trajectory has that status, or the function says yes.

        Not in a coroutine that the agent shares its event loop with: there is `wait_for_async`. Raises TimeoutError,
        with the conversation as it stands.
        """
        deadline = time.monotonic() + timeout
        while (found := self._look(which, until, deadline)) is None:
            time.sleep(LOOK)
        return found

    async def wait_for_async(
        self,
        which: str | Rollout | None,
        until: Status | str | Callable[[Trajectory], object] = Status.REWARD_RECEIVED,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109  # as `wait_for` has it
    ) -> Trajectory:
        """`wait_for`, for a coroutine: the event loop goes on meanwhile."""
        deadline = time.monotonic() + timeout
        while (found := self._look(which, until, deadline)) is None:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)  # what another thread writes tells nobody
        return found

    def _look(
        self, which: str | Rollout | None, until: str | Callable[[Trajectory], object], deadline: float
    ) -> Trajectory | None:
        """The trajectory, if it is as it shall be; None: not yet. Raises TimeoutError."""
        try:
            found = self.trajectory(which)
            if until(found) if callable(until) else found.status == until:
                return found
            stands: object = found
        except NoSuchTrajectory as error:
            stands = error
        if time.monotonic() >= deadline:
            wanted = getattr(until, "__name__", "what was waited for")
            raise TimeoutError(f"not {wanted if callable(until) else str(until)} in time:\n{stands}")
        return None

    def _read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in the test's own thread, on a connection of its own. Raises NotRunning."""
        if self.settings.durability == "memory":  # else what was captured can be read afterwards, too
            self._thread.check_running()
        with self._readers.connect() as connection:
            return query(connection, *args, **kwargs)

    @cached_property
    def _readers(self) -> Any:
        return self._thread.server.app.store.read_engine()

    async def _register(self, rollout: Rollout) -> None:
        store = self._thread.server.app.store
        await store.register_job(rollout.job_arn)
        instance = None if rollout.instance is None else json.dumps(rollout.instance)
        await store.register_trajectory(rollout.job_arn, rollout.trajectory_id, group=rollout.group, instance=instance)


EVERY = TrajectoryFilter()


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings by name, over those of tests. Raises InvalidSetting."""
    defaults = default_settings()
    known: dict[str, Any] = {"port": defaults.port, "shutdown_timeout": 1.0}
    if "database" not in given:
        known["durability"] = defaults.durability
    try:
        return load_settings({**known, **given}, {})
    except KeyError as error:
        raise InvalidSetting(f"there is no setting {error}") from None


def _all(connection: Connection) -> list[TrajectoryRecord]:
    return list(queries.iterate_trajectories(connection, EVERY))


def _whole(connection: Connection, record: TrajectoryRecord) -> Trajectory:
    return Trajectory(record, queries.turns_of(connection, record))


def _only(connection: Connection, trajectory_id: str | None, job_arn: str | None) -> Trajectory:
    """Raises NoSuchTrajectory."""
    found = (
        queries.find_trajectories(connection, trajectory_id, job_arn) if trajectory_id is not None else _all(connection)
    )
    if len(found) == 1:
        return _whole(connection, found[0])
    named = "trajectory" if trajectory_id is None else f"trajectory {trajectory_id!r}"
    if found:
        advice = "name one of" if trajectory_id is None else "job_arn tells them apart:"
        shown = ", ".join(f"{each.trajectory_id!r} ({each.job_arn})" for each in found)
        raise NoSuchTrajectory(f"there are {len(found)} of {named}: {advice} {shown}")
    others = ", ".join(f"{each.trajectory_id!r} ({each.job_arn})" for each in _all(connection))
    raise NoSuchTrajectory(f"there is no {named}; there is {f'only {others}' if others else 'none at all'}")
