"""Token ids from the model server's `/tokenize`, for turns whose answers have none.

A chat's prompt is its messages and tools, by the model's chat template. What the model answered is what its message
adds to that, without what the template puts after any message of an assistant: found out with a message of one letter.
Whatever does not fit together token by token is refused: ids are never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from emulator.completion import Choice, Completion, is_token_ids
from emulator.inference.model_server import ModelRequest, ModelServer, ModelServerError

#: What of a chat request decides about its prompt's tokens.
_OF_THE_PROMPT = ("model", "messages", "tools", "add_special_tokens", "chat_template", "chat_template_kwargs")

#: Sends a request and returns status and body. Raises ModelServerError.
Ask = Callable[[ModelRequest], tuple[int, bytes]]


class NoTokens(Exception):
    """The token ids of a turn cannot be had; the message says why."""


class Tokenizer:
    """Asks a model server; once that cannot tokenize, or is not there, it is not asked again."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._refused: str | None = None

    def prompt_ids(self, read: Completion) -> list[int]:
        """The tokens of a turn's prompt. Raises NoTokens."""
        request = read.request or {}
        if read.messages is not None:
            ids = self._chat(request, read.messages, answering=True)
        elif isinstance(read.prompt, str):
            ids = self._text(request, read.prompt, special=request.get("add_special_tokens", True))
        elif isinstance(read.prompt, list) and is_token_ids(read.prompt):
            return list(read.prompt)
        else:
            raise NoTokens("its prompt is neither a chat nor one text")
        counted = read.usage.prompt_tokens if read.usage else None
        if counted is not None and counted != len(ids):
            raise NoTokens(f"/tokenize finds {len(ids)} tokens in its prompt, where the model counted {counted}")
        return ids

    def response_ids(self, read: Completion, choice: Choice) -> list[int]:
        """The tokens of an answer's text: not always as they were sampled, and without an end. Raises NoTokens."""
        request = read.request or {}
        if choice.message is None:
            return self._text(request, choice.text or "", special=False)
        messages = read.messages or []
        before = self._chat(request, messages, answering=True)
        answer = self._added(request, messages, before, {"role": "assistant", **choice.message})
        letter = self._added(request, messages, before, {"role": "assistant", "content": "x"})
        after = letter[len(self._text(request, "x", special=False)) :]
        if after and answer[-len(after) :] != after:
            raise NoTokens("the chat template ends its answer's message in another way than a plain one")
        return answer[: len(answer) - len(after)]

    def _added(
        self, request: dict[str, Any], messages: list[dict[str, Any]], before: list[int], message: dict[str, Any]
    ) -> list[int]:
        kept = {name: value for name, value in message.items() if value is not None or name == "content"}
        ids = self._chat(request, [*messages, kept], answering=False)
        if ids[: len(before)] != before:
            raise NoTokens("by the chat template, its prompt with the answer does not begin with its prompt")
        return ids[len(before) :]

    def _chat(self, request: dict[str, Any], messages: list[dict[str, Any]], *, answering: bool) -> list[int]:
        asked = {name: request[name] for name in _OF_THE_PROMPT if request.get(name) is not None}
        return self._ids(asked | {"messages": messages, "add_generation_prompt": answering})

    def _text(self, request: dict[str, Any], text: str, *, special: object) -> list[int]:
        asked = {"model": request["model"]} if isinstance(request.get("model"), str) else {}
        return self._ids(asked | {"prompt": text, "add_special_tokens": bool(special)})

    def _ids(self, asked: dict[str, Any]) -> list[int]:
        if self._refused is not None:
            raise NoTokens(self._refused)
        try:
            status, body = self._ask(ModelRequest("/tokenize", json.dumps(asked).encode()))
        except ModelServerError as error:
            self._refused = f"the model server cannot be asked to /tokenize: {error}"
            raise NoTokens(self._refused) from None
        if status in (404, 405, 501):
            self._refused = f"the model server has no /tokenize: it answers {status}"
            raise NoTokens(self._refused)
        try:
            ids = json.loads(body)["tokens"] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            ids = None
        if not isinstance(ids, list) or not is_token_ids(ids):
            raise NoTokens(f"/tokenize answers {status} and no token ids: {body[:200].decode(errors='replace')}")
        return ids


async def ask_model_server(server: ModelServer, request: ModelRequest) -> tuple[int, bytes]:
    """Ask it, and wait for the whole answer. Raises ModelServerError."""
    answer = await server.send(request)
    try:
        return answer.status, b"".join([piece async for piece in answer])
    finally:
        answer.close()
