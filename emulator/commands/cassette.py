"""`job-runtime-local cassette`: look at recorded answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.commands import Refused
from emulator.completion import Completion, read_completion
from emulator.terminal import make_console, visible

if TYPE_CHECKING:
    from emulator.inference.cassette.blocks import Recorded
    from emulator.inference.cassette.file import Contents

#: Characters of what was said last that a table shows.
FIRST_WORDS = 60


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `show` and `check`."""
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    show = commands.add_parser("show", help="a table of the recorded answers")
    show.set_defaults(run=_show)
    check = commands.add_parser("check", help="whether the file can be replayed, and what is wrong if it cannot")
    check.set_defaults(run=_check)
    for each in (show, check):
        each.add_argument("file", type=Path, metavar="FILE")


def _read(path: Path) -> Contents:
    """Raises Refused."""
    from emulator.inference.cassette import CassetteError
    from emulator.inference.cassette.file import read_cassette

    try:
        return read_cassette(path)
    except CassetteError as error:
        raise Refused(visible(str(error))) from None


def _show(given: argparse.Namespace) -> int:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, collapse_padding=True)
    for name in ("line", "trajectory", "turn", "asked", "last words", "messages", "answered", "model", "tokens"):
        right = name in {"line", "turn", "messages", "tokens"}
        table.add_column(name, overflow="fold", justify="right" if right else "left")
    for entry in _read(given.file).entries:
        recorded = entry.recorded
        cells = (str(entry.line), recorded.trajectory or "", str(recorded.turn or 0), *_cells(recorded))
        table.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(table)
    sys.stdout.flush()
    return 0


def _cells(recorded: Recorded) -> tuple[str, ...]:
    answer = recorded.answer
    read = read_completion(recorded.body, answer.body, answer.headers.get("content-type"))
    usage = read.usage
    tokens = "" if usage is None else f"{_or_unknown(usage.prompt_tokens)} + {_or_unknown(usage.completion_tokens)}"
    kind = f"{answer.status}, {len(answer.pieces)} pieces" if answer.is_stream else str(answer.status)
    messages = "" if read.messages is None else str(len(read.messages))
    return recorded.path, _last_words(read), messages, kind, read.model or "", tokens


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else str(count)


def _last_words(read: Completion) -> str:
    """What the model was to answer to."""
    said = read.messages[-1].get("content") if read.messages else read.prompt
    text = " ".join((said if isinstance(said, str) else "" if said is None else json.dumps(said)).split())
    return text if len(text) <= FIRST_WORDS else text[: FIRST_WORDS - 1] + "…"


def _count(things: Sized, one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _check(given: argparse.Namespace) -> int:
    """Raises Refused."""
    contents = _read(given.file)
    if contents.incomplete is not None:
        raise Refused(f"{given.file}:{contents.incomplete}: the answer that begins here has no end (`...`)")
    recorded = [entry.recorded for entry in contents.entries]
    rollouts = {each.trajectory for each in recorded} - {None}
    print(f"{given.file}: {_count(recorded, 'answer', 'answers')}, {_count(rollouts, 'trajectory', 'trajectories')}")
    return 0
