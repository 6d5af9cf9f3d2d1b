"""Which recorded answer a request gets: the cassette in memory, and who was given what of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from emulator.inference.cassette.canonical import Question

#: Asked again, these are answered anew, so that their answers are numbered. Of all else one answer is enough.
SAMPLED = frozenset({"/v1/chat/completions", "/v1/completions"})


class Piece(NamedTuple):
    """A piece of a body, and the seconds between the one before it (of the first, the head) and this one."""

    after: float
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]  #: those of KEPT_HEADERS that it had
    after: float  #: seconds from the request to the answer's head; of an answer that is no stream, to its end
    pieces: tuple[Piece, ...]
    is_stream: bool  #: whether where the pieces end is a part of the answer

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(piece.data for piece in self.pieces)


#: What the emulator and its clients read of an answer's head. Nothing else is stored.
KEPT_HEADERS = ("content-type", "retry-after")


@dataclass(eq=False, slots=True)
class Take:
    """An answer, and to what and whom it was given when it was recorded."""

    question: Question
    answer: RecordedAnswer
    trajectory: str | None = None
    turn: int | None = None
    line: int | None = None  #: where it stands in the file, if it stood there when that was read
    replayed: int = 0  #: how often it was replayed since the start


class Asker(NamedTuple):
    """A trajectory that is under way."""

    job_arn: str
    trajectory_id: str


class Claim(NamedTuple):
    """A take that is given to a trajectory; `Tape.give_back` for one that it did not take to the end."""

    take: Take
    asker: Asker | None
    counted: bool


@dataclass(slots=True)
class Tape:
    """All takes, in the order of the file.

    A trajectory is given what was recorded for the trajectory whose part it plays: of the same name, or else one
    that nobody plays yet, chosen at its first request. So a group of rollouts gets the answers that a group got, each
    its own, however they overtake one another.
    """

    repeat: bool  #: whether the last answer is given again when all were given
    takes: dict[Question, list[Take]] = field(default_factory=dict)
    _recorded: set[str] = field(default_factory=set)  # trajectories that have takes
    _parts: dict[Asker, str] = field(default_factory=dict)  # whose part a trajectory plays
    _played: set[str] = field(default_factory=set)
    _given: dict[tuple[Asker | None, Question], list[Take]] = field(default_factory=dict)  # in order, each once
    _claimed: set[Take] = field(default_factory=set)  # by those who have no take of their own of that question

    def __iter__(self) -> Iterator[Take]:
        for takes in self.takes.values():
            yield from takes

    def add(self, take: Take) -> None:
        """Take what stands in the file."""
        self.takes.setdefault(take.question, []).append(take)
        if take.trajectory is not None:
            self._recorded.add(take.trajectory)

    def record(self, question: Question, answer: RecordedAnswer, asker: Asker | None, turn: int | None) -> Take | None:
        """Take what the asker was answered just now; None where an answer is enough, and there is one."""
        if question.path not in SAMPLED:
            asker, turn = None, None
            if question in self.takes:
                return None
        part = self._part(asker) if asker is not None else None
        take = Take(question, answer, part, turn)
        self._given.setdefault((asker, question), []).append(take)
        self.add(take)
        return take

    def _part(self, asker: Asker) -> str:
        """Whose part a trajectory plays from now on: that of its own name, if it plays none yet."""
        part = self._parts.setdefault(asker, asker.trajectory_id)
        self._played.add(part)
        return part

    def claim(self, question: Question, asker: Asker | None, *, again: bool) -> Claim | None:
        """The take that a request gets. `again`: whether the last one, if all were given, and `repeat` allows it."""
        takes = self.takes.get(question)
        if not takes:
            return None
        if question.path not in SAMPLED:
            return Claim(takes[0], None, counted=False)
        if asker is not None and asker not in self._parts:
            self._cast(asker, takes)
        given = self._given.setdefault((asker, question), [])
        take = self._next(takes, asker, given)
        if take is not None:
            given.append(take)
            return Claim(take, asker, counted=True)
        if not (again and self.repeat):
            return None
        return Claim(given[-1] if given else takes[-1], asker, counted=False)

    def _next(self, takes: list[Take], asker: Asker | None, given: list[Take]) -> Take | None:
        part = None if asker is None else self._parts.get(asker)
        if asker is None or part is not None:
            own = [take for take in takes if take.trajectory == part]
            if own:
                return next((take for take in own if take not in given), None)
        free = [take for take in takes if take not in self._claimed]
        take = min(free, key=lambda each: each.trajectory in self._played, default=None)
        if take is not None:
            self._claimed.add(take)
        return take

    def _cast(self, asker: Asker, takes: list[Take]) -> None:
        if asker.trajectory_id in self._recorded:
            self._part(asker)
            return
        for take in takes:
            if take.trajectory is not None and take.trajectory not in self._played:
                self._parts[asker] = take.trajectory
                self._played.add(take.trajectory)
                return

    def give_back(self, claim: Claim) -> None:
        """The claim's answer did not reach the asker whole: asked again, it gets the same."""
        if claim.counted:
            self._claimed.discard(claim.take)
            self._given[claim.asker, claim.take.question].remove(claim.take)
