"""The journal of a run: a line for each attempt that is made and each rollout that is over, on disk before it matters.

What was interrupted, however hard, goes on from it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.trainer.rollouts import Attempt, Failure, FailureText, Rollout, RolloutResult, TurnTokens
from emulator.trajectory import TurnStatus

FORMAT = "job-runtime-local/rollout-journal"
VERSION = 1

#: A rollout's row and member.
RolloutKey = tuple[int, int]


class JournalError(Exception):
    """A journal cannot be begun or gone on with; the message is one line that says why and what to do."""


@dataclass(slots=True)
class Past:
    """What a journal knows of the run so far."""

    run: dict[str, Any]  #: what it was begun with
    results: list[RolloutResult] = field(default_factory=list)
    interrupted: dict[RolloutKey, str] = field(default_factory=dict)  #: the last trajectory of rollouts not over


class Journal:
    """An open journal. What was awaited is on disk, whatever happens to process or machine."""

    def __init__(self, path: Path, *, resume: bool, run: Mapping[str, Any] | None = None) -> None:
        """Begin one for a run, or with `resume` go on with the one there is, whose `past` then says what it holds.

        Raises JournalError.
        """
        self.path = path
        self._waiting: list[bytes] = []  # lines that are not written yet
        self._written: asyncio.Future[None] | None = None  # when those will be on disk
        self._writing: asyncio.Task[None] | None = None
        self._has_lines = False
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (0 if resume else os.O_CREAT)
            self._file = os.open(path, flags, 0o644)
        except FileNotFoundError:
            raise JournalError(
                f"{path}: there is nothing to resume: no run was interrupted that writes its report there"
                if resume
                else f"{path}: there is no such folder; --report names another file"
            ) from None
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}; --report names another file") from None
        try:
            self._lock()
            if resume:
                self.past = self._read()
            else:
                self.past = self._begin(run or {})
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise JournalError(f"{self.path}: another run writes it; --report names another file") from None

    def _begin(self, run: Mapping[str, Any]) -> Past:
        if os.fstat(self._file).st_size:
            raise JournalError(
                f"{self.path}: a run was interrupted here: --resume goes on with it; remove the file to begin anew"
            )
        past = Past(dict(run))
        self._write(_line({"format": FORMAT, "version": VERSION, "run": past.run}))
        folder = os.open(self.path.resolve().parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the file has its name
        finally:
            os.close(folder)
        return past

    def _read(self) -> Past:
        with os.fdopen(os.dup(self._file), "rb") as file:
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))  # a line that the end of the run cut off
        os.lseek(self._file, 0, os.SEEK_END)
        try:
            head, *lines = [json.loads(line) for line in whole.splitlines()]
            if head["format"] != FORMAT or head["version"] != VERSION:
                raise JournalError(f"{self.path}: another version wrote it; remove it to begin anew")
            past = Past(head["run"])
            for line in lines:
                if "over" in line:
                    result = result_from(line["over"])
                    past.results.append(result)
                    past.interrupted.pop((result.row, result.member), None)
                else:
                    row, member = line["attempt"]
                    past.interrupted[row, member] = line["trajectory_id"]
        except (ValueError, KeyError, TypeError):
            raise JournalError(f"{self.path}: is no journal of a run; remove it to begin anew") from None
        return past

    @property
    def is_empty(self) -> bool:
        """Whether nothing was done yet that could be resumed."""
        return not self._has_lines and not self.past.results and not self.past.interrupted

    async def attempted(self, rollout: Rollout, trajectory_id: str) -> None:
        """An agent is about to be asked."""
        await self._append({"attempt": list(rollout.key), "trajectory_id": trajectory_id})

    async def over(self, result: RolloutResult) -> None:
        """A rollout is over."""
        await self._append({"over": result_document(result)})

    async def aclose(self, *, remove: bool) -> None:
        """Write what waits, and let it go; `remove`: the run is over, and nothing can be resumed."""
        if self._writing is not None:
            await self._writing
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    async def _append(self, document: Mapping[str, Any]) -> None:
        """Add a line; one flush to the disk serves all that were added while the one before it took place."""
        self._has_lines = True
        self._waiting.append(_line(document))
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        written = self._written
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.shield(written)

    async def _write_all(self) -> None:
        """Write until nothing waits. In a thread: who writes while a flush takes place is held up by it."""
        while (written := self._written) is not None:
            lines, self._waiting, self._written = self._waiting, [], None
            try:
                await asyncio.to_thread(self._write, b"".join(lines))
            except JournalError as error:
                written.set_exception(error)
            else:
                written.set_result(None)
        self._writing = None

    def _write(self, lines: bytes) -> None:
        """Raises JournalError."""
        rest, begin = memoryview(lines), os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # half a line would swallow the beginning of the next one
                os.ftruncate(self._file, begin)
                os.lseek(self._file, begin, os.SEEK_SET)
            raise JournalError(f"{self.path}: {error.strerror}") from None


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def result_document(result: RolloutResult) -> dict[str, Any]:
    """A result as journal and report have it."""
    return {
        "row": result.row,
        "member": result.member,
        "trajectory_id": result.trajectory_id,
        "reward": result.reward,
        "rewards": list(result.rewards),
        "failure": _failure_document(result.failure),
        "turns": [{"prompt_tokens": turn.prompt, "response_tokens": turn.response} for turn in result.turns],
        "seconds": round(result.seconds, 6),
        "attempts": [
            {
                "trajectory_id": attempt.trajectory_id,
                "failure": _failure_document(attempt.failure),
                "seconds": round(attempt.seconds, 6),
                "given_up": attempt.given_up,
            }
            for attempt in result.attempts
        ],
    }


def result_from(document: Mapping[str, Any]) -> RolloutResult:
    """What `result_document` wrote. Raises KeyError, ValueError, TypeError for anything else."""
    return RolloutResult(
        document["row"],
        document["member"],
        tuple(
            Attempt(each["trajectory_id"], _failure_from(each["failure"]), each["seconds"], each["given_up"])
            for each in document["attempts"]
        ),
        tuple(document["rewards"]),
        tuple(
            TurnTokens(TurnStatus.COMPLETED, turn["prompt_tokens"], turn["response_tokens"])
            for turn in document["turns"]
        ),
    )


def _failure_document(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"text": failure.text.value, "reason": failure.reason}


def _failure_from(document: Mapping[str, str] | None) -> Failure | None:
    return None if document is None else Failure(FailureText(document["text"]), document["reason"])
