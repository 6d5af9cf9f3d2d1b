"""Pages of a list that is whole in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from emulator.operations.control import page_token, read_page_token
from emulator.protocol.errors import ValidationException

T = TypeVar("T")


def paged(
    question: Mapping[str, Any], items: Sequence[T], size: int, token: str | None
) -> tuple[Sequence[T], str | None]:
    """A page, and the token of the next one, if there is one. Raises ValidationException for a token of elsewhere."""
    start = 0
    if token is not None:
        place = read_page_token(question, token)
        if len(place) != 1 or type(place[0]) is not int or place[0] < 0:
            raise ValidationException("NextToken is not one that was given for this request")
        start = place[0]
    end = start + size
    return items[start:end], page_token(question, [end]) if end < len(items) else None
