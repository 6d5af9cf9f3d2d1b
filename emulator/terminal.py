"""Writing what others wrote to a terminal, or to whatever stands in its place."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: C0 and C1 controls, what turns the direction of text around, other line breaks, halves of characters.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, lines: bool = False) -> str:
    """The text with every character that could command a terminal as an escape; `lines` keeps line breaks and tabs."""

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        if lines and character in "\n\t":
            return character
        return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"

    return _UNSAFE.sub(escape, text)


def prepare_output() -> None:
    """Let standard output take any character, whatever its encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def make_console() -> Console:
    """A console that takes texts as they are: no markup in them, no emoji codes, nothing guessed to be highlighted.

    It raises BrokenPipeError when its reader is gone. Into a pipe or a file it writes lines of any length.
    """
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    prepare_output()
    console = _Console(markup=False, emoji=False, highlight=False)
    return console if console.is_terminal else _Console(markup=False, emoji=False, highlight=False, width=1_000_000)
