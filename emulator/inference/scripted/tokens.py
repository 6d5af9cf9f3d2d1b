"""A tokenizer without a vocabulary: text falls into pieces, and a piece's id is a hash of it.

The pieces of a text, put together, are the text. A text cut between two pieces keeps the ids before the cut, and
a message has the same pieces whether it is being answered or comes back in the next prompt: as with a real model,
a turn's prompt and response ids are the beginning of the next turn's prompt ids.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.inference.scripted.wire import dump_text, text_of

VOCABULARY = 49152
MAX_MODEL_LEN = 131072

#: Every character is matched by one of the three: a (part of a) word, marks, white space.
_PIECE = re.compile(r" ?\w{1,12}| ?[^\w\s]{1,3}|\s{1,8}")

#: What the scripted model almost said, for `top_logprobs`. One more than the 20 that a request may ask for.
_ALTERNATIVES = (
    *(" the", " a", ",", ".", " and", " of", " to", " is", "\n", " in", " it"),
    *(" that", " you", " I", " for", " on", " with", " not", " be", " as", " this"),
)


def pieces(text: str) -> list[str]:
    """The text, cut into the strings of its tokens."""
    return _PIECE.findall(text)


def token_id(piece: str) -> int:
    """The id of one piece, the same in every process."""
    return zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY


def token_ids(tokens: Sequence[str]) -> list[int]:
    """The ids of many."""
    return [token_id(piece) for piece in tokens]


def placeholder(token: int) -> str:
    """How a token is written of which only the id is known (vLLM's `return_tokens_as_token_ids` writes it so)."""
    return f"token_id:{token}"


def chat_prompt(request: Mapping[str, Any], *, answering: bool = True) -> list[str]:
    """The pieces of a chat request's prompt: the tools, then each message between two markers.

    `answering`: and the marker of the answer.
    """
    prompt: list[str] = []
    if tools := request.get("tools"):
        prompt += ["<|tools|>", *pieces(dump_text(tools)), "<|end|>"]
    for message in request["messages"]:
        prompt.append(f"<|{message['role']}|>")
        prompt += _PIECE.findall(text_of(message.get("content")))
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            prompt += pieces(str(function.get("name", "")))
            prompt += pieces(str(function.get("arguments", "")))
        prompt.append("<|end|>")
    if answering:
        prompt.append("<|assistant|>")
    return prompt


def likeliest(piece: str, position: int, count: int, given: float | None = None) -> list[tuple[str, float]]:
    """The sampled piece and `count` - 1 alternatives, each with its log probability, below 1 in sum.

    They fall, unless the sampled piece's is given.
    """
    if given is None:
        chance = 0.5 + (token_id(piece) + 7919 * position) % 4990 / 10000
        found = [(piece, _logarithm(chance))]
    else:
        chance = min(math.exp(given), 1 - 1e-9)
        found = [(piece, given)]
    rest = 1 - chance
    start = token_id(piece) + position
    for step in range(len(_ALTERNATIVES)):
        if len(found) >= count:
            break
        other = _ALTERNATIVES[(start + step) % len(_ALTERNATIVES)]
        if other != piece:
            rest /= 2
            found.append((other, _logarithm(rest)))
    return found


def _logarithm(chance: float) -> float:
    return math.floor(math.log(chance) * 1e6) / 1e6  # rounded down, so that the sum stays below 1
