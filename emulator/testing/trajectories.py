"""What a test looks at afterwards: trajectories and their turns, read when they are asked for."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from emulator.completion import Completion
from emulator.completion.stream import events
from emulator.documents import read_turn, total_usage, trajectory_document
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import Status, TurnStatus


class Body:
    """The exact bytes of one side of a turn."""

    def __init__(self, content: bytes, whose: str, content_type: str | None = None) -> None:
        self.content = content  #: the bytes
        self.content_type = content_type
        self._whose = whose

    @property
    def text(self) -> str:
        """The bytes as UTF-8; what is none becomes U+FFFD."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The bytes as JSON. Raises ValueError if they are none, as those of a stream are not (see `events`)."""
        try:
            return json.loads(self.content)
        except ValueError as error:
            shown = self.text if len(self.content) <= 500 else self.text[:500] + "…"
            raise ValueError(f"{self._whose} is no JSON ({error}): {shown!r}") from None

    @property
    def events(self) -> list[Any]:
        """The server-sent events of a stream, each read as JSON, without the `[DONE]` at its end."""
        whole, rest = events(self.text)
        return [json.loads(data) for data in [*whole, rest] if data and data != "[DONE]"]

    def __repr__(self) -> str:
        return f"<{self._whose}, {len(self.content)} bytes>"


class Turn:
    """One prompt and the model's answer."""

    def __init__(self, record: TurnRecord) -> None:
        self.record = record  #: with the times in microseconds since 1970
        self.number = record.number  #: from 0, in the order in which requests arrived
        self.status: TurnStatus = record.status  #: equal to the text `completed`, `failed`, `aborted` or `discarded`
        self.path = record.path
        self.http_status = record.http_status  #: of the model's answer
        self.request = Body(record.request, f"the request of turn {record.number}", "application/json")
        self.response = Body(record.response, f"the response of turn {record.number}", record.content_type)

    @cached_property
    def completion(self) -> Completion:
        """What request and response say, streams put together."""
        return read_turn(self.record)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that the agent sent."""
        return self.completion.messages or []

    @property
    def message(self) -> dict[str, Any] | None:
        """The model's message, the first if there are several; put together if it was streamed."""
        choices = self.completion.choices
        return choices[0].message if choices else None

    @property
    def text(self) -> str | None:
        """What the model said, in a chat or a plain completion."""
        choices = self.completion.choices
        if not choices:
            return None
        content = (choices[0].message or {}).get("content")
        return content if isinstance(content, str) else choices[0].text

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls of the model's message."""
        return (self.message or {}).get("tool_calls") or []

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped."""
        choices = self.completion.choices
        return choices[0].finish_reason if choices else None

    @property
    def streamed(self) -> bool:
        """Whether the answer was a stream."""
        return self.completion.streamed

    @property
    def error(self) -> str | None:
        """What went wrong, in the emulator's words or the model's."""
        return self.record.error or self.completion.error

    @property
    def usage(self) -> dict[str, Any] | None:
        """The tokens that the model counted."""
        usage = self.completion.usage
        return None if usage is None else usage.raw

    def __repr__(self) -> str:
        return f"<turn {self.number}, {self.status}>"


class Trajectory:
    """A rollout's record, as it stood when it was asked for. As a text, it is the conversation."""

    def __init__(self, record: TrajectoryRecord, turns: list[TurnRecord]) -> None:
        self.record = record  #: with the times in microseconds since 1970
        self.job_arn = record.job_arn
        self.trajectory_id = record.trajectory_id
        self.status: Status = record.status  #: equal to the text `open`, `ready`, `failed` or `reward-received`
        self.completion: Status | None = record.completion  #: how it was sealed, kept when the reward arrives
        self.rewards = record.rewards
        self.eligible = record.eligible  #: whether the trainer may use it
        self.group = record.group
        self.instance: dict[str, Any] | None = None if record.instance is None else json.loads(record.instance)
        self.turns = [Turn(turn) for turn in turns]

    @property
    def completed_turns(self) -> list[Turn]:
        """The turns that count."""
        return [turn for turn in self.turns if turn.status is TurnStatus.COMPLETED]

    @property
    def usage(self) -> dict[str, int]:
        """The tokens of the completed turns."""
        return total_usage([turn.record for turn in self.turns], [turn.completion for turn in self.turns])

    @property
    def document(self) -> dict[str, Any]:
        """All of it as `/_emulator/trajectories` gives it."""
        return trajectory_document(self.record, [turn.record for turn in self.turns])

    def __str__(self) -> str:
        from emulator.conversation import conversation

        return conversation(self.record, [turn.record for turn in self.turns])

    def __repr__(self) -> str:
        return f"<trajectory {self.trajectory_id}, {self.status}, turns: {len(self.turns)}>"
