"""Which recorded answer a request gets: the cassette in memory, and who was given what of it."""

from __future__ import annotations

from collections import Counter
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
    """A take that is given to an asker; `Tape.give_back` for one that it did not take to the end."""

    take: Take
    asker: Asker | None
    is_new: bool  #: whether the asker gets it for the first time


@dataclass(slots=True)
class _Memory:
    """What is known of an asker."""

    part: str | None = None  #: whose part it plays
    given: dict[Question, list[Take]] = field(default_factory=dict)  #: each take once, in order


#: Askers that are remembered; a cassette may be replayed for ever.
REMEMBERED = 20_000


class Tape:
    """All takes, in the order of the file, and who was given what.

    A trajectory plays the part of a recorded one: of the one with its name, or else of one that nobody plays yet,
    chosen at its first request. It is given what that one was. So a group of rollouts gets the answers that a group
    got, each its own, however they overtake one another. With `repeat`, parts are played again when all were, and who
    asks more often than was recorded gets its last answer again.
    """

    def __init__(self, repeat: bool) -> None:
        self.takes: dict[Question, list[Take]] = {}
        self._repeat = repeat
        self._recorded: set[str] = set()  # trajectories that have takes
        self._memories: dict[Asker | None, _Memory] = {}
        self._played: Counter[str] = Counter()  # how many play, or have played, the part of a trajectory
        self._lent: Counter[Take] = Counter()  # to those who had no take of their own of that question

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
        memory = self._memory(asker)
        if asker is not None and memory.part is None:
            self._cast(memory, asker.trajectory_id)
        take = Take(question, answer, memory.part, turn)
        memory.given.setdefault(question, []).append(take)
        self.add(take)
        return take

    def claim(self, question: Question, asker: Asker | None, *, anew: bool) -> Claim | None:
        """The take that a request gets, if there is one. `anew`: no take twice, as a model server can be asked."""
        takes = self.takes.get(question)
        if not takes:
            return None
        if question.path not in SAMPLED:
            return Claim(takes[0], None, is_new=False)
        again = self._repeat and not anew
        memory = self._memory(asker)
        if asker is not None and memory.part is None:
            self._choose_part(memory, asker, takes, again)
        given = memory.given.setdefault(question, [])
        take = self._next(takes, memory, asker, again)
        if take is not None:
            given.append(take)
            return Claim(take, asker, is_new=True)
        return Claim(given[-1], asker, is_new=False) if again else None

    def give_back(self, claim: Claim) -> None:
        """The claim's answer did not reach the asker whole: asked again, it gets the same."""
        if claim.is_new:
            given = self._memory(claim.asker).given.get(claim.take.question, [])
            if claim.take in given:
                given.remove(claim.take)
            self._lent[claim.take] = max(0, self._lent[claim.take] - 1)

    def rewind(self) -> None:
        """Forget who was given what: every recorded answer is there to be given again."""
        self._memories.clear()
        self._played.clear()
        self._lent.clear()

    def _memory(self, asker: Asker | None) -> _Memory:
        memory = self._memories.get(asker)
        if memory is None:
            if len(self._memories) >= REMEMBERED:
                del self._memories[next(iter(self._memories))]
            memory = self._memories[asker] = _Memory()
        return memory

    def _cast(self, memory: _Memory, part: str) -> None:
        memory.part = part
        self._played[part] += 1

    def _choose_part(self, memory: _Memory, asker: Asker, takes: list[Take], again: bool) -> None:
        if asker.trajectory_id in self._recorded:
            self._cast(memory, asker.trajectory_id)
            return
        parts = [take.trajectory for take in takes if take.trajectory is not None]
        part = min(parts, key=self._played.__getitem__, default=None)
        if part is not None and (again or not self._played[part]):
            self._cast(memory, part)

    def _next(self, takes: list[Take], memory: _Memory, asker: Asker | None, again: bool) -> Take | None:
        """A take that the asker has not been given yet."""
        given = memory.given[takes[0].question]
        if asker is None or memory.part is not None:
            own = [take for take in takes if take.trajectory == memory.part]
            if own:
                return next((take for take in own if take not in given), None)
        # What was said to a trajectory whose part is played is not for others, unless there is nothing else.
        free = (
            take for take in takes if not self._lent[take] and not (take.trajectory and self._played[take.trajectory])
        )
        take = next(free, None)
        if take is None and again and not given:
            take = min(takes, key=self._lent.__getitem__)
        if take is not None:
            self._lent[take] += 1
        return take
