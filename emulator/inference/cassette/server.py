"""The model server behind `--model cassette:FILE`: it replays, and with `--record` it asks and records."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

from emulator.completion import is_stream, reports_error
from emulator.inference.cassette.blocks import Recorded
from emulator.inference.cassette.canonical import FieldPath, Question, question
from emulator.inference.cassette.difference import describe, differences, nearest, shortened
from emulator.inference.cassette.file import Recorder, read_cassette
from emulator.inference.cassette.tape import KEPT_HEADERS, Asker, Claim, Piece, RecordedAnswer, Take, Tape
from emulator.inference.model_server import Health, ModelAnswer, ModelRequest, ModelServer

log = logging.getLogger(__name__)

#: Statuses beside the good ones that are recorded: what the model server says of the request itself. What it says of
#: itself (it is busy, it failed) or of who asks (a wrong key) would be replayed when it is no longer true.
OF_THE_REQUEST = frozenset({400, 404, 405, 413, 415, 422})

#: Characters of a value in an error message, which clients get, and in the log.
IN_MESSAGE, IN_LOG = 80, 400


class CassetteServer:
    """A `ModelServer` that answers with what another one answered once.

    `model_server` is asked what is not on the cassette; without one it replays alone. `ignored` are fields in which
    equal requests may differ. `pauses`: whether answers take their time again. `repeat`: whether the last answer to a
    request is given again when all were given.
    """

    def __init__(
        self,
        path: Path,
        model_server: ModelServer | None = None,
        *,
        ignored: Sequence[FieldPath] = (),
        pauses: bool = False,
        repeat: bool = True,
    ) -> None:
        self._path = path
        self._model_server = model_server
        self._ignored = ignored
        self._pauses = pauses
        self._tape = Tape(repeat)
        self._recorder: Recorder | None = None
        self._of_before: list[Take] = []
        self._replayed = self._recorded = self._unrecorded = self._refused = 0

    async def start(self) -> None:
        """Read the cassette, and start the model server. Raises CassetteError, ModelServerError."""
        if self._model_server is None:
            contents = read_cassette(self._path)
        else:
            self._recorder = Recorder(self._path, self._ignored)
            contents = self._recorder.contents
        if contents.incomplete is not None:
            what = "left out" if self._recorder is None else "cut off"
            log.warning("%s:%d: an answer without its end (`...`) is %s", self._path, contents.incomplete, what)
        for entry in contents.entries:
            each = entry.recorded
            asked = question(each.method, each.path, each.body, self._ignored)
            self._tape.add(Take(asked, each.answer, each.trajectory, each.turn, entry.line))
        self._of_before = list(self._tape)
        if self._model_server is not None:
            try:
                await self._model_server.start()
            except BaseException:
                self._close_recorder()
                raise

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Replay an answer, or ask for one; without either, the answer is a 404 that says why.

        Raises ModelServerError.
        """
        asked = question(request.method, request.path, request.body, self._ignored)
        asker = Asker(request.job_arn, request.trajectory_id) if request.trajectory_id else None
        claim = self._tape.claim(asked, asker, anew=self._model_server is not None)
        if claim is not None:
            return await self._replay(claim)
        if self._model_server is None:
            return await self._miss(asked)
        since = perf_counter()
        answer = await self._model_server.send(request)
        if not (200 <= answer.status < 300 or answer.status in OF_THE_REQUEST):
            self._unrecorded += 1
            return answer

        def keep(recorded: RecordedAnswer | None) -> None:
            self._keep(request, asked, asker, recorded)

        return _Recording(answer, since, keep)

    async def health(self) -> Health:
        """Ready; while recording, as the model server that is asked."""
        if self._model_server is None:
            return Health(True, f"{self._path} replays {len(self._of_before)} answers")
        health = await self._model_server.health()
        return Health(health.ready, f"recording to {self._path}: {health.detail}")

    def reset(self) -> None:
        """Begin the cassette anew: who was given what is forgotten, what was recorded stays."""
        self._tape.rewind()
        if self._model_server is not None:
            self._model_server.reset()

    async def aclose(self) -> None:
        """End the model server, put what was recorded in order, and say in the log what the cassette was good for."""
        try:
            if self._model_server is not None:
                await self._model_server.aclose()
        finally:
            self._close_recorder()
            log.info("%s: %s", self._path, self.summary())

    def summary(self) -> str:
        """What was replayed and recorded since the start, in a few words."""
        unused = sum(take.replayed == 0 for take in self._of_before)
        said = [f"replayed {self._replayed}, never used {unused} of {len(self._of_before)}"]
        if self._model_server is not None:
            said.insert(0, f"recorded {self._recorded}")
        if self._unrecorded:
            said.append(f"passed on {self._unrecorded} unrecorded (failed, broken off, or the client left)")
        if self._refused:
            said.append(f"had no answer to {self._refused}")
        return ", ".join(said)

    def _close_recorder(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    async def _replay(self, claim: Claim) -> ModelAnswer:
        def ended(whole: bool) -> None:
            if whole:
                self._replayed += 1
                claim.take.replayed += 1
            else:
                self._tape.give_back(claim)

        if self._pauses:
            try:
                await asyncio.sleep(claim.take.answer.after)
            except BaseException:
                ended(False)
                raise
        return _Replay(claim.take.answer, self._pauses, ended)

    def _keep(self, request: ModelRequest, asked: Question, asker: Asker | None, answer: RecordedAnswer | None) -> None:
        if answer is None or (answer.is_stream and reports_error(answer.body)):
            self._unrecorded += 1
            return
        take = self._tape.record(asked, answer, asker, request.turn)
        if take is None or self._recorder is None:
            return
        self._recorder.append(Recorded(request.method, request.path, request.body, answer, take.trajectory, take.turn))
        self._recorded += 1

    async def _miss(self, asked: Question) -> ModelAnswer:
        self._refused += 1
        if takes := self._tape.takes.get(asked):
            times = f"{len(takes)} answers" if len(takes) > 1 else "one answer"
            message = f"{self._path} has {times} to this request, and all were given (--cassette-used-up refuse)"
            log.warning("%s", message)
            return _refusal(message)
        near = await asyncio.to_thread(nearest, asked, tuple(self._tape.takes))
        if near is None:
            message = f"{self._path} has no answer to {asked.method} {shortened(asked.path, 100)}"
            log.warning("%s", message)
            return _refusal(message)
        take = self._tape.takes[near][0]
        place = f"line {take.line}" + (f", trajectory {shortened(take.trajectory, 60)}" if take.trajectory else "")
        start = f"{self._path} has no answer to this request. The nearest one it answers ({place}) differs: "
        found = differences(asked.body, near.body)
        log.warning("%s%s", start, describe(found, IN_LOG))
        return _refusal(start + describe(found, IN_MESSAGE), found[0].field)


class _Replay:
    """A `ModelAnswer` that was recorded."""

    def __init__(self, answer: RecordedAnswer, pauses: bool, ended: Callable[[bool], None]) -> None:
        self.status, self.headers = answer.status, answer.headers
        self._pieces = answer.pieces
        self._pauses = pauses
        self._ended: Callable[[bool], None] | None = ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(piece.after if self._pauses else 0)  # at least others get their turn
            if self._ended is None:
                return
            yield piece.data
        self._end(True)

    def close(self) -> None:
        self._end(False)

    def _end(self, whole: bool) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended(whole)


class _Recording:
    """A `ModelAnswer` on its way through; `keep` gets it when it is whole, and None if it is not to be."""

    def __init__(self, answer: ModelAnswer, since: float, keep: Callable[[RecordedAnswer | None], None]) -> None:
        self.status, self.headers = answer.status, answer.headers
        self._answer = answer
        self._since = since
        self._head_after = perf_counter() - since
        self._keep: Callable[[RecordedAnswer | None], None] | None = keep

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces: list[Piece] = []
        last = perf_counter()
        async for data in self._answer:
            now = perf_counter()
            pieces.append(Piece(now - last, data))
            last = now
            yield data
        if self._keep is not None:
            keep, self._keep = self._keep, None
            keep(self._whole(pieces))

    def close(self) -> None:
        self._answer.close()
        if self._keep is not None:
            keep, self._keep = self._keep, None
            keep(None)

    def _whole(self, pieces: list[Piece]) -> RecordedAnswer:
        headers = {name: self.headers[name] for name in KEPT_HEADERS if name in self.headers}
        body = b"".join(piece.data for piece in pieces)
        # Of an answer that says its length, where it was cut into pieces is an accident of the network.
        in_pieces = len(pieces) > 1 and "content-length" not in self.headers
        if in_pieces or (body and is_stream(body, headers.get("content-type"))):
            return RecordedAnswer(self.status, headers, self._head_after, tuple(pieces), is_stream=True)
        after = perf_counter() - self._since
        return RecordedAnswer(self.status, headers, after, (Piece(0.0, body),) if body else (), is_stream=False)


class _Refusal:
    """A `ModelAnswer` that says why there is none."""

    headers: Mapping[str, str] = {"content-type": "application/json"}
    status = 404  # which clients do not try again

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    def close(self) -> None:
        pass


def _refusal(message: str, param: str | None = None) -> _Refusal:
    error = {"message": message, "type": "not_on_cassette", "param": param, "code": 404}
    return _Refusal(json.dumps({"error": error}).encode())
