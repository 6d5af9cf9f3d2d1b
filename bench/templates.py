"""Requests as bytes, for `load`: complete but for the placeholders, which are replaced by as many digits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

#: One connection, from 0; one pass through the requests of one connection, counted over all of them; and a number
#: that stays the same for some passes of one connection.
CONNECTION, CYCLE, TRAJECTORY = "@CONNECTION@", "@CYCLE_____@", "@TRAJECTORY@"

JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/bench"

_SYSTEM = "You are a careful assistant that solves arithmetic problems with a calculator. Answer with the number alone."
_SENTENCES = (
    "A farmer has 17 sheep and buys 24 more at the market on Saturday.",
    "The calculator was asked for 17 + 24 and answered 41.",
    "Each of them gives 3.5 kg of wool a year, sold at 4.20 a kilogram.",
    "Show no work, but check the result twice before you answer.",
    "After a storm he finds that 5 sheep are missing, and 2 of those come back.",
)


def http_request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """One request on a connection that is kept."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chat_body(size: int, *, stream: bool = False) -> bytes:
    """A chat of exactly so many bytes that grew turn by turn; what differs between requests stands at its end."""
    options = {"model": "bench", "temperature": 1.0, "max_tokens": 512} | ({"stream": True} if stream else {})
    question = {"role": "user", "content": f"Turn {CYCLE}: how many kilograms are that, and what do they bring?"}

    def render(history: Sequence[dict[str, str]], instructions: str = _SYSTEM) -> bytes:
        messages = [{"role": "system", "content": instructions}, *history, question]
        return json.dumps({**options, "messages": messages}, separators=(",", ":")).encode()

    text = " ".join(_SENTENCES)
    message_bytes = len(render([{"role": "assistant", "content": text}])) - len(render([])) + 1
    count = max(0, size - len(render([]))) // message_bytes
    history = [{"role": ("user", "assistant")[number % 2], "content": text} for number in range(count)]
    missing = size - len(render(history))
    if missing < 0:
        raise ValueError(f"no chat is as short as {size} bytes")
    padding = f" {text}" * (missing // len(text) + 1)
    return render(history, _SYSTEM + padding[:missing])
