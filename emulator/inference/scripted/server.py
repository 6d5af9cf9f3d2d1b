"""The embedded model server: answers at once, in memory, by a script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from emulator.inference.model_server import BrokenAnswer, Health, ModelAnswer, ModelRequest
from emulator.inference.scripted import chat, completion
from emulator.inference.scripted.errors import error_body
from emulator.inference.scripted.reply import Error, Reply, Rhythm
from emulator.inference.scripted.request import Request
from emulator.inference.scripted.rules import NoRuleMatches, Rules
from emulator.inference.scripted.tokens import MAX_MODEL_LEN, chat_prompt, pieces, token_ids
from emulator.inference.scripted.wire import (
    BadRequest,
    Form,
    chat_form,
    check_messages,
    completion_form,
    dump,
    parse,
)
from emulator.inference.scripted.writing import EPOCH, Choice, cut, digest, is_broken

if TYPE_CHECKING:
    from emulator.inference.scripted.script_file import ScriptFile

log = logging.getLogger(__name__)

_JSON = MappingProxyType({"content-type": "application/json"})
_EVENTS = MappingProxyType({"content-type": "text/event-stream; charset=utf-8"})

#: "default" is the model that agents ask for (see the vLLM that we start, which serves the name as well).
MODELS = ("default", "scripted")


class ScriptedServer:
    """A ModelServer without a model: rules say what is said, and the answer has every OpenAI and vLLM shape.

    Equal requests get equal bytes, unless a rule has a sequence of replies. Rules may be changed at any time; without
    any, the built-in script answers. Those of a file are read again when it changes.
    """

    def __init__(self, rules: Rules | ScriptFile | None = None) -> None:
        self._file = None if rules is None or isinstance(rules, Rules) else rules
        self._rules = rules if isinstance(rules, Rules) else Rules()
        self._instead: Rules | None = None

    @property
    def rules(self) -> Rules:
        """The rules that answer now."""
        if self._instead is not None:
            return self._instead
        return self._rules if self._file is None else self._file.rules()

    def answer_by(self, rules: Rules | None) -> None:
        """Have other rules answer, those of a test say; None: its own again."""
        self._instead = rules

    async def start(self) -> None:
        """Nothing to begin."""

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Answer. What is wrong with a request is said in an answer, as a real server says it."""
        try:
            answer = self._answer(request)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of a template, or of a function that is somebody else's: pytest.fail(), exit()
            log.exception("the scripted model's rules failed")
            place = "" if self._file is None else self._file.place(error)
            message = f"The scripted model's rules failed: {place}{type(error).__name__}: {error}"
            answer = _error(500, "ScriptError", message)
        if answer.delay:
            await asyncio.sleep(answer.delay)
        return answer

    def _answer(self, request: ModelRequest) -> _Answer:
        method, answer = _ROUTES.get(request.path, (None, None))
        if answer is None:
            return _error(404, "Not Found", f"Not Found: {request.path}")
        if request.method != method:
            return _error(405, "Method Not Allowed", f"Method Not Allowed: {request.method} {request.path}")
        try:
            return answer(request, self.rules)
        except BadRequest as refusal:
            return _error(400, "BadRequestError", str(refusal), refusal.param)
        except RecursionError:
            return _error(400, "BadRequestError", "The body is nested too deeply")
        except NoRuleMatches as refusal:
            return _error(400, "NoRuleMatches", str(refusal))

    async def health(self) -> Health:
        """Always ready; the detail says what is wrong with a changed rule file."""
        detail = "the scripted model answers; no language model is loaded"
        if self._file is not None:
            detail = f"{detail}; {self._file.describe()}"
        return Health(ready=True, detail=detail)

    def reset(self) -> None:
        """Begin every sequence of replies anew."""
        self.rules.reset()

    async def aclose(self) -> None:
        """Nothing to end."""


class _Answer:
    """A ModelAnswer whose body is there, or is made piece by piece as it is read."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Iterable[bytes],
        *,
        delay: float = 0.0,
        rhythm: Rhythm | None = None,
        broken: bool = False,
    ) -> None:
        self.status, self.headers = status, headers
        self.delay = delay  #: seconds until it begins
        self._body = iter(body)
        self._first, self._pause = (rhythm.first, rhythm.pause) if rhythm else (0.0, 0.0)
        self._broken = broken
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        wait = self._first
        for piece in self._body:
            await asyncio.sleep(wait)  # if only to let others have their turn, and notice a client that leaves
            if self._closed:
                return
            yield piece
            wait = self._pause
        if self._broken:
            raise BrokenAnswer("the script broke the answer off")

    def close(self) -> None:
        self._closed = True


def _json(value: object) -> _Answer:
    return _Answer(200, _JSON, (dump(value),))


def _error(status: int, kind: str, message: str, param: str | None = None) -> _Answer:
    return _refusal(Error(status, message, kind, param=param), 0.0)


def _refusal(error: Error, delay: float) -> _Answer:
    headers = {**_JSON} if error.retry_after is None else {**_JSON, "retry-after": f"{error.retry_after}"}
    return _Answer(error.status, headers, (dump(error_body(error)),), delay=delay)


def _answer(form: Form, replies: Sequence[Reply], choices: Sequence[Choice], body: Iterable[bytes]) -> _Answer:
    """An answer of these choices, sent as the first reply says."""
    first, broken = replies[0], is_broken(choices)
    if form.stream:
        return _Answer(200, _EVENTS, body, delay=first.delay, rhythm=first.rhythm, broken=broken)
    if broken:
        whole = b"".join(body)
        body = (whole[: len(whole) // 2],)
    return _Answer(200, _JSON, body, delay=first.delay, broken=broken)


def _asking(request: ModelRequest, body: Mapping[str, Any]) -> Request:
    return Request(body, job=request.job_arn, trajectory=request.trajectory_id, instance=request.instance)


def _digest(request: ModelRequest, *asked: Request) -> str:
    """What the answer's ids are made of. Where rules answer equal requests differently, the ids differ too."""
    by_rules = [f"\n{each.trajectory}\n{each.count}" for each in asked if each.by_rule]
    return digest(request.path, request.body + "".join(by_rules).encode("utf-8", "surrogatepass"))


def _chat(request: ModelRequest, rules: Rules) -> _Answer:
    asked = parse(request.body)
    form = chat_form(asked)
    asking = _asking(request, asked)
    replies = rules.replies(asking, form.n)
    if (refused := _refused(replies)) is not None:
        return refused
    request_digest = _digest(request, asking)
    prompt = chat_prompt(asked)
    choices = [cut(reply, form, index, request_digest) for index, reply in enumerate(replies)]
    if form.stream:
        return _answer(form, replies, choices, chat.stream(form, request_digest, prompt, choices))
    return _answer(form, replies, choices, (chat.whole(form, request_digest, prompt, choices),))


def _refused(replies: Sequence[Reply]) -> _Answer | None:
    """The answer that a reply with an error makes of all."""
    reply = next((reply for reply in replies if reply.error is not None), None)
    return None if reply is None or reply.error is None else _refusal(reply.error, reply.delay)


def _completion(request: ModelRequest, rules: Rules) -> _Answer:
    asked = parse(request.body)
    form = completion_form(asked)
    prompts = completion.prompts(asked)
    replies: list[Reply] = []
    # Messages and tools belong to chats.
    alone = [_asking(request, {**asked, "prompt": each.text, "messages": None, "tools": None}) for each in prompts]
    for asking in alone:
        replies += rules.replies(asking, form.n)
    if (refused := _refused(replies)) is not None:
        return refused
    request_digest = _digest(request, *alone)
    choices = [cut(reply, form, index, request_digest) for index, reply in enumerate(replies)]
    answered = [(prompts[choice.index // form.n], choice) for choice in choices]
    if form.stream:
        return _answer(form, replies, choices, completion.stream(form, request_digest, prompts, answered))
    return _answer(form, replies, choices, (completion.whole(form, request_digest, prompts, answered),))


def _models(request: ModelRequest, rules: Rules) -> _Answer:  # noqa: ARG001
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


def _tokenize(request: ModelRequest, rules: Rules) -> _Answer:  # noqa: ARG001
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
