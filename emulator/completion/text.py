"""Bytes to text and JSON without ever failing, and text that can always be encoded again."""

from __future__ import annotations

import json
import re
from typing import Any

#: Escapes of surrogates: in pairs they are harmless, alone they make a text that cannot be encoded.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode(data: bytes) -> tuple[str, str | None]:
    """The text of UTF-8 bytes without their BOM, U+FFFD for what is none; and where the first such byte stands."""
    try:
        return data.decode().removeprefix("\ufeff"), None
    except UnicodeDecodeError as error:
        text = data.decode("utf-8", "replace").removeprefix("\ufeff")
        return text, f"byte {error.start} is not UTF-8"


def load(text: str, *, mend: bool = True) -> tuple[Any, str | None]:
    """The value of a JSON text, or why it has none. NaN and Infinity are numbers; of equal keys the last one counts.

    Without `mend` a text may hold half a character, whose other half the next chunk of a stream brings.
    """
    try:
        value = json.loads(text)
        return (mended(value) if mend and _SURROGATE.search(text) else value), None
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:  # not JSON, or a number of more than 4300 digits
        return None, f"not JSON: {error}" if text.strip() else "empty"


def mended(value: Any) -> Any:
    """A JSON value in which every text can be encoded: halves of characters meet, U+FFFD for those that stay alone.

    Raises RecursionError.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    elif isinstance(value, dict):
        return {mended(key): mended(entry) for key, entry in value.items()}
    elif isinstance(value, list):
        return [mended(entry) for entry in value]
    return value


def text_or_none(value: object) -> str | None:
    """A text as `mended` leaves it; None for the empty one and for anything else."""
    return str(mended(value)) if isinstance(value, str) and value else None
