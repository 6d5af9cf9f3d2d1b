"""The embedded model server: answers at once, in memory, by a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from emulator.inference.model_server import Health, ModelAnswer, ModelRequest
from emulator.inference.scripted import chat, completion
from emulator.inference.scripted.script import Script, choose
from emulator.inference.scripted.tokens import MAX_MODEL_LEN, chat_prompt, pieces, token_ids
from emulator.inference.scripted.wire import (
    BadRequest,
    chat_form,
    check_messages,
    completion_form,
    dump,
    parse,
)
from emulator.inference.scripted.writing import EPOCH, cut, digest

_JSON = MappingProxyType({"content-type": "application/json"})
_EVENTS = MappingProxyType({"content-type": "text/event-stream; charset=utf-8"})

#: "default" is the model that agents ask for (see the vLLM that we start, which serves the name as well).
MODELS = ("default", "scripted")


class ScriptedServer:
    """A ModelServer without a model: a script says what is said, and the answer has every OpenAI and vLLM shape.

    Equal requests get equal bytes.
    """

    def __init__(self, script: Script = choose) -> None:
        self._script = script

    async def start(self) -> None:
        """Nothing to begin."""

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Answer. What is wrong with a request is said in an answer, as a real server says it."""
        method, answer = _ROUTES.get(request.path, (None, None))
        if answer is None:
            return _error(404, "Not Found", f"Not Found: {request.path}")
        if request.method != method:
            return _error(405, "Method Not Allowed", f"Method Not Allowed: {request.method} {request.path}")
        try:
            return answer(request, self._script)
        except BadRequest as refusal:
            return _error(400, "BadRequestError", str(refusal), refusal.param)
        except RecursionError:
            return _error(400, "BadRequestError", "The body is nested too deeply")

    async def health(self) -> Health:
        """Always ready."""
        return Health(ready=True, detail="the scripted model answers; no language model is loaded")

    async def aclose(self) -> None:
        """Nothing to end."""


class _Answer:
    """A ModelAnswer whose body is there, or is made piece by piece as it is read."""

    def __init__(self, status: int, headers: Mapping[str, str], body: Iterable[bytes]) -> None:
        self.status, self.headers = status, headers
        self._body = iter(body)
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._body:
            if self._closed:
                return
            yield piece
            await asyncio.sleep(0)  # others get their turn, and a client that leaves is noticed

    def close(self) -> None:
        self._closed = True


def _json(value: object) -> _Answer:
    return _Answer(200, _JSON, (dump(value),))


def _error(status: int, kind: str, message: str, param: str | None = None) -> _Answer:
    # As vLLM writes its ErrorInfo: `code` is the HTTP status.
    error = {"message": message, "type": kind, "param": param, "code": status}
    return _Answer(status, _JSON, (dump({"error": error}),))


def _chat(request: ModelRequest, script: Script) -> _Answer:
    asked = parse(request.body)
    form = chat_form(asked)
    request_digest = digest(request.path, request.body)
    prompt = chat_prompt(asked)
    choices = [cut(script(asked, index), form, index, request_digest) for index in range(form.n)]
    if form.stream:
        return _Answer(200, _EVENTS, chat.stream(form, request_digest, prompt, choices))
    return _Answer(200, _JSON, (chat.whole(form, request_digest, prompt, choices),))


def _completion(request: ModelRequest, script: Script) -> _Answer:
    asked = parse(request.body)
    form = completion_form(asked)
    prompts = completion.prompts(asked)
    request_digest = digest(request.path, request.body)
    answered: list[completion.Answered] = []
    for prompt in prompts:
        alone = {**asked, "prompt": prompt.text, "messages": None, "tools": None}  # which belong to chats
        for index in range(form.n):
            answered.append((prompt, cut(script(alone, index), form, len(answered), request_digest)))
    if form.stream:
        return _Answer(200, _EVENTS, completion.stream(form, request_digest, prompts, answered))
    return _Answer(200, _JSON, (completion.whole(form, request_digest, prompts, answered),))


def _models(request: ModelRequest, script: Script) -> _Answer:  # noqa: ARG001
    return _json({"object": "list", "data": [_model(name) for name in MODELS]})


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": EPOCH,
        "owned_by": "job-runtime-local",
        "root": "scripted",
        "parent": None,
        "max_model_len": MAX_MODEL_LEN,
    }


def _tokenize(request: ModelRequest, script: Script) -> _Answer:  # noqa: ARG001
    asked = parse(request.body)
    if isinstance(asked.get("prompt"), str):
        tokens = pieces(asked["prompt"])
    else:
        check_messages(asked)
        tokens = chat_prompt(asked, answering=asked.get("add_generation_prompt") is not False)
    return _json(
        {
            "count": len(tokens),
            "max_model_len": MAX_MODEL_LEN,
            "tokens": token_ids(tokens),
            "token_strs": tokens if asked.get("return_token_strs") else None,
        }
    )


_ROUTES = {
    "/v1/chat/completions": ("POST", _chat),
    "/v1/completions": ("POST", _completion),
    "/v1/models": ("GET", _models),
    "/tokenize": ("POST", _tokenize),
}
