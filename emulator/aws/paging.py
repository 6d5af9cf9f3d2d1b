"""Pages of a list that is whole in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from emulator.operations.control import page_token, read_page_token

T = TypeVar("T")


def paged(
    question: Mapping[str, Any], items: Sequence[T], size: int, token: str | None
) -> tuple[Sequence[T], str | None]:
    """A page, and the token of the next one, if there is one. Raises ValidationException for a token of elsewhere."""
    start = read_page_token(question, token, int)[0] if token is not None else 0
    end = start + size
    return items[start:end], page_token(question, [end]) if end < len(items) else None
