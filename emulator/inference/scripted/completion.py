"""Text completions: prompts as the API takes them, choices written as OpenAI and vLLM write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.inference.scripted.tokens import VOCABULARY, likeliest, pieces, placeholder, token_ids
from emulator.inference.scripted.wire import BadRequest, Form, dump
from emulator.inference.scripted.writing import FINGERPRINT, Choice, chunks, created, events, is_broken, usage


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. Of a prompt in token ids the text is not known: placeholders stand for it."""

    pieces: list[str]
    ids: list[int] | None = None  #: where the request gave ids

    @property
    def text(self) -> str:
        """The prompt's text."""
        return "".join(self.pieces)

    def token_ids(self) -> list[int]:
        """The ids, as given or as the pieces have them."""
        return token_ids(self.pieces) if self.ids is None else self.ids


def prompts(request: Mapping[str, Any]) -> list[Prompt]:
    """The prompts of a request: a text, several, token ids, or several lists of them. Raises BadRequest."""
    given = request.get("prompt")
    if given in (None, "", []):
        raise BadRequest("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if not isinstance(given, list) or isinstance(given[0], int):
        given = [given]
    return [_prompt(one) for one in given]


def _prompt(given: object) -> Prompt:
    if isinstance(given, str):
        return Prompt(pieces(given))
    if not isinstance(given, list) or not given or not all(type(item) is int for item in given):
        raise BadRequest("`prompt` must be a string, a list of strings, or token ids", "prompt")
    if not all(0 <= item < VOCABULARY for item in given):
        raise BadRequest(f"Token ids must be between 0 and {VOCABULARY - 1}", "prompt")
    return Prompt([placeholder(item) for item in given], given)


#: A choice and the prompt that it answers.
Answered = tuple[Prompt, Choice]


def whole(form: Form, request_digest: str, asked: Sequence[Prompt], answered: Sequence[Answered]) -> bytes:
    """The answer in one JSON document."""
    choices = [_whole_choice(form, prompt, choice) for prompt, choice in answered]
    return dump({**_head(form, request_digest), "choices": choices, "usage": _usage(asked, answered)})


def stream(form: Form, request_digest: str, asked: Sequence[Prompt], answered: Sequence[Answered]) -> Iterator[bytes]:
    """The answer in server-sent events, one a token; with `echo` the prompt comes before, in one."""
    bodies = [_deltas(form, prompt, choice) for prompt, choice in answered]
    total = _usage(asked, answered) if form.include_usage else None
    broken = is_broken(choice for _, choice in answered)
    return events(_head(form, request_digest), (), bodies, total, broken=broken)


def _head(form: Form, request_digest: str) -> dict[str, Any]:
    return {
        "id": f"cmpl-{request_digest}",
        "object": "text_completion",
        "created": created(request_digest),
        "model": form.model,
        "system_fingerprint": FINGERPRINT,
    }


def _usage(asked: Sequence[Prompt], answered: Sequence[Answered]) -> dict[str, int]:
    return usage(sum(len(prompt.pieces) for prompt in asked), [choice for _, choice in answered])


def _whole_choice(form: Form, prompt: Prompt, choice: Choice) -> dict[str, Any]:
    spoken = choice.tokens()
    echoed = prompt.pieces if form.echo else []
    written = _choice(choice.index, "".join(echoed + spoken), _logprobs(form, choice, echoed, spoken, 0, 0))
    written |= {"finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
    if form.token_ids:
        written |= {"prompt_token_ids": prompt.token_ids(), "token_ids": token_ids(spoken)}
    return written


def _deltas(form: Form, prompt: Prompt, choice: Choice) -> Iterator[dict[str, Any]]:
    offset = 0
    prompt_ids = prompt.token_ids() if form.token_ids else None
    if form.echo:
        written = _choice(choice.index, prompt.text, _logprobs(form, choice, prompt.pieces, [], 0, 0))
        offset = len(prompt.text)
        if form.token_ids:
            written |= {"prompt_token_ids": prompt_ids, "token_ids": []}
            prompt_ids = None
        yield written
    position = 0
    for text, spoken in chunks(choice.tokens(), choice.rhythm):
        written = _choice(choice.index, text, _logprobs(form, choice, [], spoken, position, offset))
        if form.token_ids:
            # vLLM: the prompt's ids with the first tokens of a choice only
            written |= {"prompt_token_ids": prompt_ids, "token_ids": token_ids(spoken)}
            prompt_ids = None
        position += len(spoken)
        offset += sum(map(len, spoken))
        yield written
    if choice.finish_reason is not None:
        ending = {"finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
        yield _choice(choice.index, "", None) | ending


def _choice(index: int, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}


def _logprobs(
    form: Form, choice: Choice, echoed: Sequence[str], spoken: Sequence[str], position: int, offset: int
) -> dict[str, Any] | None:
    if form.logprobs is None:
        return None
    # What is echoed was not sampled: as OpenAI does for the first token of a prompt, null.
    found = [likeliest(piece, at, form.logprobs, choice.logprob(at)) for at, piece in enumerate(spoken, position)]
    offsets = []
    for piece in (*echoed, *spoken):
        offsets.append(offset)
        offset += len(piece)
    nothing = [None] * len(echoed)
    return {
        "tokens": [*echoed, *spoken],
        "token_logprobs": [*nothing, *(tops[0][1] for tops in found)],
        "top_logprobs": [*nothing, *(dict(tops) for tops in found)],
        "text_offset": offsets,
    }
