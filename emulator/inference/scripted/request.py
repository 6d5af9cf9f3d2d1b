"""What is asked of the scripted model, as rules and functions see it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Any

from emulator.inference.scripted.wire import text_of

#: The value of what is not there; None is JSON's null.
MISSING: Any = type("Missing", (), {"__repr__": lambda _: "nothing", "__bool__": lambda _: False})()


class Request:
    """One question: a chat, or a prompt of a text completion.

    A request is checked before it comes here: messages have roles, tools have names.
    """

    def __init__(
        self,
        body: Mapping[str, Any],
        choice: int = 0,
        *,
        job: str = "",
        trajectory: str = "",
        instance: str | None = None,
    ) -> None:
        self.body = body  #: the request's JSON; of a text completion, with this `prompt` alone
        messages: Sequence[Mapping[str, Any]] = body.get("messages") or ()
        self.messages = messages  #: the conversation; nothing for a text completion
        #: the text of the last message, or the prompt
        self.last: str = text_of(messages[-1].get("content")) if messages else body.get("prompt") or ""
        self.choice = choice  #: which of the `n` answers is asked for, from 0
        self.job = job  #: the job's ARN
        self.trajectory = trajectory  #: the trajectory's id
        self.instance = instance  #: the data set's row, as JSON text
        self.match: re.Match[str] | None = None  #: what the rule's regular expression found
        self.count = 0  #: how often the rule answered in this trajectory before
        self.by_rule = False  #: whether a rule answers
        self.seed: int | str = 0  #: that of the rules

    def __repr__(self) -> str:
        return f"<Request: turn {self.turn} of {self.trajectory or 'no trajectory'}, last {_short(self.last)}>"

    def of_choice(self, choice: int) -> Request:
        """The same question for another of its answers."""
        other = Request(self.body, choice, job=self.job, trajectory=self.trajectory, instance=self.instance)
        other.match, other.count, other.seed = self.match, self.count, self.seed
        return other

    @cached_property
    def turn(self) -> int:
        """1 and how often the assistant spoke in the conversation: a retry is of the same turn."""
        return 1 + sum(1 for message in self.messages if message["role"] == "assistant")

    @cached_property
    def last_user(self) -> str | None:
        """The text of the user's last message, or the prompt."""
        return self._last_of("user") if self.messages else self.last

    @cached_property
    def last_tool(self) -> str | None:
        """The text of the last tool message."""
        return self._last_of("tool")

    def _last_of(self, role: str) -> str | None:
        found = (message for message in reversed(self.messages) if message["role"] == role)
        message = next(found, None)
        return None if message is None else text_of(message.get("content"))

    @cached_property
    def last_json(self) -> Any:
        """The last message, read as JSON; MISSING if it is none."""
        return _read(self.last)

    @cached_property
    def row(self) -> Any:
        """The data set's row; MISSING if there is none."""
        return MISSING if self.instance is None else _read(self.instance)

    @cached_property
    def tools(self) -> Sequence[str]:
        """The names of the tools that are offered."""
        return [tool["function"]["name"] for tool in self.body.get("tools") or ()]

    @cached_property
    def random(self) -> Random:
        """Chance that is the same whenever seed, trajectory, turn and choice are."""
        return Random(f"{self.seed}\n{self.trajectory}\n{self.turn}\n{self.choice}")  # noqa: S311 - no secret

    @property
    def model(self) -> str:
        """The model that is asked for; `default` if none is named."""
        return str(self.body.get("model") or "default")


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return MISSING


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
