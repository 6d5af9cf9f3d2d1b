"""The model's own words in the body of an error."""

from __future__ import annotations

import re

from emulator.completion.text import decode, load, mended, text_or_none

#: What is decoded as a whole. FastAPI echoes what it refuses, and a conversation may be long.
_LIMIT = 1 << 18
#: A JSON text that is likely to be meant for people.
_MESSAGE = re.compile(r'"(?:message|Message|detail|msg|error)"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_TITLE = re.compile(r"<title[^<>]*>([^<]+)<", re.IGNORECASE)


def error_message(body: bytes) -> str | None:
    """The model's own words in the body of an error, or None if it has none for people. Never raises.

    Knows OpenAI's, vLLM's, FastAPI's and AWS's errors, short plain texts, and HTML pages by their title.
    Of a body that is cut short or above 256 KiB, the first message that can be found counts.
    """
    text = decode(body[:_LIMIT])[0].strip()
    value, why = load(text) if len(body) <= _LIMIT else (None, "too large")
    if why is None:
        return message_in(value)
    if not _is_json(text):
        return plain_message(text)
    found = _MESSAGE.search(text)
    return text_or_none(load(found[1])[0]) if found else None


def message_in(value: object, depth: int = 5) -> str | None:
    """The text for people in a decoded error, or None.

    {"error": {"message"}} (OpenAI, vLLM), {"error": text}, {"message"} (older vLLM), {"Message"} (AWS),
    {"detail": text or [{"loc", "msg"}]} (FastAPI).
    """
    if isinstance(value, str):
        return text_or_none(value.strip())
    if depth and isinstance(value, list):
        return "; ".join(filter(None, (message_in(entry, depth - 1) for entry in value[:5]))) or None
    if depth and isinstance(value, dict):
        for key in ("message", "Message", "detail", "msg", "error"):
            if message := message_in(value.get(key), depth - 1):
                return _place(value.get("loc")) + message if key == "msg" else message
    return None


def plain_message(text: str) -> str | None:
    """A short text as it is, a page of HTML as its title; None if that is no text for people, or JSON cut short."""
    if text.startswith("<"):
        from html import unescape  # rarely needed

        title = _TITLE.search(text, 0, 1 << 16)
        text = unescape(title[1]) if title else ""
    text = " ".join(text[:1001].split())
    readable = text.isprintable() and "\ufffd" not in text and not _is_json(text)
    return text if text and readable and len(text) <= 1000 else None


def _is_json(text: str) -> bool:
    return text.startswith(("{", "[", '"'))


def _place(loc: object) -> str:
    """Where in the request FastAPI found a mistake."""
    parts = [str(part) for part in loc if isinstance(part, str | int)] if isinstance(loc, list) else []
    return mended(".".join(parts)) + ": " if parts else ""
