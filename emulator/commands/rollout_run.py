"""One run of rollouts, from the journal's first line to the report."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from emulator.commands import Refused
from emulator.commands.endpoint import set_agent_environment
from emulator.commands.rollout import GRACE
from emulator.commands.rollout_runtime import embedded_runtime, running_runtime
from emulator.commands.rollout_view import View, print_table
from emulator.commands.serve import OTHER_FILES, allow_open_files
from emulator.logs import configure_logging
from emulator.settings import Settings
from emulator.trainer.agents import AgentContext, AgentFailed, InvalidAgent, find_agent
from emulator.trainer.dispatch import Dispatcher, Limits, roll_out_all
from emulator.trainer.journal import Journal, JournalError
from emulator.trainer.payloads import InferenceParameters, Spelling
from emulator.trainer.rollouts import Rollout, RolloutResult, Row
from emulator.trainer.runtime import Runtime, RuntimeGone


class Run:
    """One call of the command."""

    def __init__(
        self,
        given: argparse.Namespace,
        settings: Settings | None,
        rows: list[Row],
        limits: Limits,
        inference: InferenceParameters,
        ks: tuple[int, ...],
    ) -> None:
        self._given = given
        self._settings = settings
        self._rows = rows
        self._limits = limits
        self._inference = inference
        self._ks = ks
        self._interrupted = 0
        self._is_waiting = True  # for the agent
        self._verdict: dict[str, Any] = {}

    async def run(self) -> int:
        """Raises Refused."""
        given = self._given
        began_at = _now()
        try:
            journal = Journal(
                given.report.with_name(given.report.name + ".journal"), resume=given.resume, run=self._described()
            )
        except JournalError as error:
            raise Refused(str(error)) from None
        is_over = False
        try:
            self._compare(journal)
            async with self._runtime() as runtime:
                await self._roll_out(runtime, journal)
                self._verdict = await runtime.verdict(journal.past.run["job_arn"])
            if not journal.is_empty:
                document = self._report(journal, began_at)
                is_over = not document["interrupted"]
                print_table(document, given.report)
        except (AgentFailed, InvalidAgent, JournalError) as error:
            raise Refused(str(error)) from None
        except RuntimeGone as error:
            raise Refused(str(error) if journal.is_empty else f"{error}; --resume goes on where this ended") from None
        finally:
            await journal.aclose(remove=is_over or journal.is_empty)
        if self._interrupted and not is_over:
            return 130
        return 1 if any(result.failure for result in journal.past.results) else 0

    def _described(self) -> dict[str, Any]:
        """What makes this run this one: a resumed one must have the same."""
        given = self._given
        job = given.job or _new_job("us-west-2" if self._settings is None else self._settings.region)
        rows = json.dumps([[row.number, row.prompt, dict(row.instance)] for row in self._rows]).encode()
        return {
            "job_arn": job,
            "dataset": given.dataset,
            "dataset_digest": hashlib.sha256(rows).hexdigest(),
            "rows": len(self._rows),
            "limit": given.limit,
            "seed": given.seed,
            "group_size": given.group_size,
            "agent": given.agent,
            "payload": given.payload,
            "inference": asdict(self._inference),
            "database": None if self._settings is None else self._settings.shown_database,
        }

    def _compare(self, journal: Journal) -> None:
        """Raises Refused if the journal is another run's."""
        now, then = self._described(), journal.past.run
        now["job_arn"] = self._given.job or then.get("job_arn")
        differing = [name for name in now if now[name] != then.get(name)]
        if differing:
            name = differing[0]
            shown = "what the dataset holds has changed" if name == "dataset_digest" else (
                f"{name} was {_shown(then.get(name))}, and is {_shown(now[name])}"
            )  # fmt: skip
            raise Refused(f"--resume: {journal.path} is of another run: {shown}")

    async def _roll_out(self, runtime: Runtime, journal: Journal) -> None:
        """Do what is left to do. Raises RuntimeGone, AgentFailed, InvalidAgent."""
        given, past = self._given, journal.past
        done = {(result.row, result.member) for result in past.results}
        rollouts = [Rollout(row, member) for row in self._rows for member in range(given.group_size)]
        environment = set_agent_environment(runtime.endpoint, runtime.region)
        with View(len(rollouts), past.results) as view:
            agent = find_agent(given.agent, AgentContext(environment, given.timeout, view.line))
            dispatcher = Dispatcher(
                agent=agent, runtime=runtime, job_arn=past.run["job_arn"], limits=self._limits,
                inference=self._inference, spelling=Spelling(given.payload), announce=journal.attempted,
            )  # fmt: skip

            async def finished(result: RolloutResult) -> None:
                past.results.append(result)  # first: who is interrupted while it is written shall report it
                await journal.over(result)
                view.finished(result)

            async def all_of_it() -> None:
                await agent.start(given.wait)
                self._is_waiting = False
                await runtime.register_job(dispatcher.job_arn)
                left = [rollout for rollout in rollouts if rollout.key not in done]
                await roll_out_all(dispatcher, left, finished, past.interrupted)

            try:
                await self._until_interrupted(all_of_it(), dispatcher, view)
            finally:
                await agent.aclose()

    async def _until_interrupted(self, work: Coroutine[Any, Any, None], dispatcher: Dispatcher, view: View) -> None:
        """Do the work: Ctrl-C ends it gently, a second one at once."""
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)

        def interrupt() -> None:
            self._interrupted += 1
            dispatcher.end()
            if self._interrupted == 1 and not self._is_waiting:
                view.line(f"stopping: what is in flight has {GRACE:g} s; Ctrl-C again ends it at once")
                loop.call_later(GRACE, task.cancel)
            else:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            with suppress(asyncio.CancelledError):
                await task
        finally:
            task.cancel()

    def _report(self, journal: Journal, began_at: str) -> dict[str, Any]:
        """Write the report, and return it. Raises Refused."""
        from emulator.trainer.report import report_document, write_report

        given, past = self._given, journal.past
        planned: int = len(self._rows) * given.group_size
        document = report_document(
            past.results,
            run=past.run,
            planned=planned,
            interrupted=len(past.results) < planned,
            times={"began_at": began_at, "ended_at": _now()},
            verdict=self._verdict,
            threshold=given.success_threshold,
            ks=self._ks,
        )
        try:
            write_report(given.report, document)
        except OSError as error:
            raise Refused(f"{given.report}: {error.strerror}; --report names another file, --resume goes on") from None
        return document

    def _runtime(self) -> AbstractAsyncContextManager[Runtime]:
        """The emulator: one that runs, or one in this process."""
        if self._settings is None:
            return running_runtime(self._given.endpoint, self._given.wait)
        configure_logging(self._settings)
        allow_open_files(2 * self._settings.max_in_flight + OTHER_FILES)
        return embedded_runtime(self._settings, self._given.wait)


def _new_job(region: str) -> str:
    return f"arn:aws:sagemaker:{region}:123456789012:job/AgentRFT/rollout-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _shown(value: object) -> str:
    return "not given" if value is None else json.dumps(value)
