"""A rollout's requests without what each repeats: a conversation grows, and is sent whole each time."""

from __future__ import annotations

import json
from typing import Any

from emulator.inference.cassette.blocks import Recorded


class Conversations:
    """The messages of each turn that stands on a cassette."""

    def __init__(self) -> None:
        self._messages: dict[str, dict[int, list[str]]] = {}  # by trajectory and turn; each message in JSON

    def add(self, recorded: Recorded) -> None:
        """Remember the messages of a turn that stands in the file; of several with that number, the first counts."""
        if recorded.trajectory is None or recorded.turn is None:
            return
        turns = self._messages.setdefault(recorded.trajectory, {})
        if recorded.turn not in turns and isinstance(messages := recorded.messages, list):
            turns[recorded.turn] = [json.dumps(message) for message in messages]

    def begun_by(self, trajectory: str | None, turn: int | None, messages: list[Any]) -> tuple[int, int] | None:
        """The earlier turn whose messages these begin with, the longest, and how many those are; None without one."""
        if trajectory is None or turn is None:
            return None
        spelled = [json.dumps(message) for message in messages]
        best: tuple[int, int] | None = None
        for earlier, begun in self._messages.get(trajectory, {}).items():
            longer = best is None or len(begun) > best[1]
            if begun and longer and earlier < turn and spelled[: len(begun)] == begun:
                best = earlier, len(begun)
        return best

    def of(self, trajectory: str | None, turn: int) -> list[Any] | None:
        """The messages of a turn; None if it is not known."""
        spelled = self._messages.get(trajectory or "", {}).get(turn)
        return None if spelled is None else [json.loads(message) for message in spelled]
