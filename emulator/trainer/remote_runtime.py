"""The `Runtime` of another process, or another machine: by way of its `/_emulator/`."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from emulator.trainer.http import HTTPError, Origin, Reply
from emulator.trainer.rollouts import Recorded, TurnTokens
from emulator.trainer.runtime import RuntimeGone
from emulator.trajectory import Status, TurnStatus, is_settled

#: Seconds that one question waits for a trajectory to settle, before it is asked again.
LONG_POLL = 30


class RemoteRuntime:
    """The `Runtime` behind a URL. Raises ValueError if it is none."""

    def __init__(self, url: str, *, endpoint: str | None = None) -> None:
        """`endpoint`: where agents reach it, if that is another URL."""
        self._origin = Origin(url, keep_alive=True)
        self.endpoint = (endpoint or url).rstrip("/")
        self.region = ""  # until `start`

    async def start(self) -> dict[str, Any]:
        """Look whether it is there, and learn its region; what `/_emulator/info` says."""
        info = await self._ask("GET", "/_emulator/info")
        try:
            self.region = str(info["settings"]["region"])
        except (KeyError, TypeError):
            raise RuntimeGone(f"{self.endpoint} is no job-runtime-local") from None
        return dict(info)

    async def problem(self) -> str | None:
        """Why its model server cannot be asked; None if it can."""
        answer = await self._send("GET", "/_emulator/health")
        return None if answer.status == 200 else str(_document(answer.body).get("detail"))

    async def aclose(self) -> None:
        """Let the connections go."""
        await self._origin.aclose()

    async def register_job(self, job_arn: str) -> None:
        """As the protocol has it."""
        await self._ask("POST", "/_emulator/jobs", {"job_arn": job_arn})

    async def register(self, job_arn: str, trajectory_id: str, *, group: str, instance: str) -> None:
        """As the protocol has it."""
        document = {"job_arn": job_arn, "trajectory_id": trajectory_id, "group": group}
        await self._ask("POST", "/_emulator/trajectories", document | {"instance": json.loads(instance)})

    async def settled(self, job_arn: str, trajectory_id: str, *, is_new: bool = False) -> None:  # noqa: ARG002
        """As the protocol has it."""
        target = f"/_emulator/settled/{_quoted(job_arn, trajectory_id)}?seconds={LONG_POLL}"
        while not is_settled(Status((await self._ask("GET", target))["status"])):
            pass

    async def give_up(self, job_arn: str, trajectory_id: str) -> bool:
        """As the protocol has it."""
        document = {"job_arn": job_arn, "trajectory_id": trajectory_id}
        return bool((await self._ask("POST", "/_emulator/give-up", document))["sealed"])

    async def recorded(self, job_arn: str, trajectory_id: str) -> Recorded | None:
        """As the protocol has it."""
        answer = await self._send("GET", f"/_emulator/trajectories/{_quoted(job_arn, trajectory_id)}")
        if answer.status == 404:
            return None
        document = self._checked(answer)
        return Recorded(
            Status(document["status"]),
            None if document["completion"] is None else Status(document["completion"]),
            tuple(document["rewards"] or ()),
            tuple(map(_turn_tokens, document["turns"])),
        )

    async def verdict(self, job_arn: str) -> dict[str, Any]:
        """As the protocol has it."""
        return await self._ask("GET", f"/_emulator/verdict?job={quote(job_arn)}")

    async def _ask(self, method: str, target: str, document: object = None) -> dict[str, Any]:
        return self._checked(await self._send(method, target, document))

    def _checked(self, answer: Reply) -> dict[str, Any]:
        document = _document(answer.body)
        if answer.status != 200:
            raise RuntimeGone(f"{self.endpoint} answered {answer.status}: {document.get('Message')}")
        return document

    async def _send(self, method: str, target: str, document: object = None) -> Reply:
        try:
            return await self._origin.send(method, target, document)
        except HTTPError as error:
            raise RuntimeGone(f"{self.endpoint}: {error}") from None


def _quoted(job_arn: str, trajectory_id: str) -> str:
    return f"{quote(job_arn, safe=':/')}/{quote(trajectory_id, safe='')}"


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _turn_tokens(turn: dict[str, Any]) -> TurnTokens:
    usage = turn["usage"] or {}
    return TurnTokens(TurnStatus(turn["status"]), usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
