"""A cassette as a file: read, appended to while recording, put in order at the end. docs/cassettes.md is its format."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emulator.inference.cassette.blocks import Recorded
from emulator.inference.cassette.canonical import FieldPath, Question, question
from emulator.inference.cassette.conversations import Conversations
from emulator.inference.cassette.reading import WrongBlock, load, read_block
from emulator.inference.cassette.writing import write_block
from emulator.inference.model_server import ModelServerUnavailable

VERSION = 1
HEADER = f"# A model server's answers, recorded and replayed by job-runtime-local.\ncassette: {VERSION}\n".encode()
BEGIN, END = b"---\n", b"...\n"
_BEGIN_LINE = re.compile(rb"^---[ \t]*\r?\n", re.MULTILINE)
_BEGUN = re.compile(rb"(?<=\n)-{1,3}\Z")  # its recorder was killed at once
_END_LINE = re.compile(rb"\n\.\.\.[ \t]*(?:\r?\n|\Z)")


class CassetteError(ModelServerUnavailable):
    """A cassette cannot be read, is wrong, is being recorded by another, or cannot be written."""


@dataclass(slots=True)
class Entry:
    """One recorded answer, and where it stands."""

    recorded: Recorded
    start: int  #: of its bytes, marks included
    end: int
    line: int | None  #: its first line, from 1


@dataclass(slots=True)
class Contents:
    """What a file holds."""

    header_end: int
    entries: list[Entry]
    end: int  #: of what is whole
    incomplete: int | None  #: the line where an answer begins that has no end: its recorder was killed
    conversations: Conversations

    def add(self, entry: Entry) -> None:
        """Take what stands at the end."""
        self.entries.append(entry)
        self.conversations.add(entry.recorded)
        self.end = entry.end


def read_cassette(path: Path) -> Contents:
    """Read a file. Raises CassetteError, which names the line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        advice = "; --record MODEL makes one" if isinstance(error, FileNotFoundError) else ""
        raise CassetteError(f"{path}: {error.strerror}{advice}") from None
    return parse_cassette(data, path)


def parse_cassette(data: bytes, path: Path) -> Contents:
    """The contents of a file. Raises CassetteError."""
    data = _BEGUN.sub(b"", data)
    begins = list(_BEGIN_LINE.finditer(data))
    ends = [*(begin.start() for begin in begins), len(data)]  # of the header, then of the answers
    header = _decoded(data[: ends[0]], path, 1)
    _check_header(header, path)
    contents = Contents(ends[0], [], ends[0], None, Conversations())
    line = header.count("\n") + 1
    for begin, end in zip(begins, ends[1:], strict=True):
        body = data[begin.end() : end]
        mark = _END_LINE.search(body)
        if mark is None and end == len(data):
            contents.incomplete = line
            break
        whole = len(body) if mark is None else mark.start() + 1
        try:
            recorded = read_block(_decoded(body[:whole], path, line + 1), contents.conversations)
        except WrongBlock as error:
            raise CassetteError(f"{path}:{line + 1 + error.line}: {error}") from None
        contents.add(Entry(recorded, begin.start(), end, line))
        line += data.count(b"\n", begin.start(), end)
    return contents


def _decoded(data: bytes, path: Path, line: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise CassetteError(f"{path}:{line}: this is not UTF-8") from None


def _check_header(header: str, path: Path) -> None:
    try:
        value = load(header)
    except WrongBlock as error:
        raise CassetteError(f"{path}:{error.line + 1}: {error}") from None
    if not isinstance(value, dict) or "cassette" not in value:
        raise CassetteError(f"{path}:1: this is no cassette: one begins with `cassette: {VERSION}`")
    if value["cassette"] != VERSION:
        raise CassetteError(f"{path}:1: a cassette of version {value['cassette']!r}; this program knows {VERSION}")


class Recorder:
    """A cassette that is open for recording, by this process alone."""

    def __init__(self, path: Path, ignored: Sequence[FieldPath]) -> None:
        """Open it, or make one; what a killed recorder left half written is cut off. Raises CassetteError."""
        self._path = path
        self._ignored = ignored
        self._file = -1
        try:
            self._file = _open_locked(path.resolve())
            data = path.read_bytes()
            if HEADER.startswith(data):  # new, or killed at once
                os.truncate(self._file, 0)
                os.write(self._file, HEADER)
                data = HEADER
            self.contents = parse_cassette(data, path)
            os.truncate(self._file, self.contents.end)
            if data[: self.contents.end][-1:] != b"\n":
                self._end_line()
        except OSError as error:
            self._let_go()
            raise CassetteError(f"{path}: {error.strerror}") from None
        except CassetteError:
            self._let_go()
            raise

    def append(self, recorded: Recorded) -> None:
        """Add an answer: it is in the file when this returns, or nothing of it is. Raises CassetteError."""
        block = BEGIN + write_block(recorded, self.contents.conversations).encode() + END
        try:
            self._write(block)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._file, self.contents.end)
            raise CassetteError(f"{self._path}: {error.strerror}") from None
        start = self.contents.end
        self.contents.add(Entry(recorded, start, start + len(block), None))

    def close(self) -> None:
        """Put the answers in order, and let go. Raises CassetteError."""
        try:
            ordered = in_order(self.contents.entries, self._ignored)
            if ordered != self.contents.entries:
                self._rewrite(ordered)
        except OSError as error:
            raise CassetteError(f"{self._path}: {error.strerror}; its answers are whole, but in no order") from None
        finally:
            self._let_go()

    def _end_line(self) -> None:
        self._write(b"\n")
        self.contents.end += 1
        if self.contents.entries:
            self.contents.entries[-1].end += 1
        else:
            self.contents.header_end += 1

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def _rewrite(self, ordered: list[Entry]) -> None:
        path = self._path.resolve()
        data = path.read_bytes()
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            file.write(data[: self.contents.header_end])
            for entry in ordered:
                file.write(data[entry.start : entry.end])
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, partial)
        partial.replace(path)

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _open_locked(path: Path) -> int:
    """A descriptor of the file that others cannot have for recording. Raises CassetteError, OSError."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(file).st_ino:
                return file
        except BlockingIOError:
            os.close(file)
            raise CassetteError(f"{path}: another emulator is recording it") from None
        except FileNotFoundError:
            pass
        os.close(file)  # its last recorder has put another file in its place: once more


def in_order(entries: Sequence[Entry], ignored: Sequence[FieldPath]) -> list[Entry]:
    """The same order whoever was answered first: what was asked outside a rollout, then rollout by rollout.

    Rollouts are ordered by what they asked first, which is the same in each recording, then by their names; their
    answers by turn. What is left equal stays as it is.
    """
    asked = [question(each.recorded.method, each.recorded.path, each.recorded.body, ignored) for each in entries]
    first: dict[str, tuple[int, Question]] = {}
    for entry, each in zip(entries, asked, strict=True):
        name, turn = entry.recorded.trajectory, entry.recorded.turn or 0
        if name is not None and (name not in first or turn < first[name][0]):
            first[name] = turn, each

    def place(number: int) -> tuple[bool, Question, str, int]:
        recorded = entries[number].recorded
        if recorded.trajectory is None:
            return False, asked[number], "", 0
        return True, first[recorded.trajectory][1], recorded.trajectory, recorded.turn or 0

    return [entries[number] for number in sorted(range(len(entries)), key=place)]
