"""Token ids from a model server's `/tokenize`, which have to fit together or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from emulator.completion import Completion, read_completion
from emulator.export.tokenizing import NoTokens, Tokenizer
from emulator.inference.model_server import ModelRequest, ModelServerUnavailable

USER = {"role": "user", "content": "Hi"}

Template = Callable[[list[dict[str, Any]], bool], str]


def plain(messages: list[dict[str, Any]], answering: bool) -> str:
    """A chat template in which every message ends alike."""
    text = "".join(f"<{message['role']}>{message['content']}$\n" for message in messages)
    return text + "<assistant>" if answering else text


class Server:
    """A model server that can do nothing but tokenize, character by character."""

    def __init__(self, template: Template = plain, status: int = 200) -> None:
        self._template = template
        self._status = status
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: ModelRequest) -> tuple[int, bytes]:
        """Answer."""
        asked = json.loads(request.body)
        self.asked.append(asked)
        if self._status != 200:
            return self._status, b'{"error": "no"}'
        text = asked.get("prompt") or self._template(asked.get("messages"), asked.get("add_generation_prompt"))
        return 200, json.dumps({"tokens": [ord(letter) for letter in text]}).encode()


def read(content: str = "Yes?", *, prompt_tokens: int | None = None, **request: object) -> Completion:
    """A turn."""
    body = json.dumps({"model": "m", "messages": [USER], **request}).encode()
    answer: dict[str, Any] = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}
    if prompt_tokens is not None:
        answer["usage"] = {"prompt_tokens": prompt_tokens}
    return read_completion(body, json.dumps(answer).encode(), "application/json")


def text(ids: list[int]) -> str:
    """What tokens say."""
    return "".join(map(chr, ids))


def test_the_prompt_is_what_the_template_makes_of_messages_and_tools() -> None:
    server = Server()
    turn = read(tools=[{"type": "function"}], temperature=1, chat_template_kwargs={"thinking": False})
    assert text(Tokenizer(server).prompt_ids(turn)) == "<user>Hi$\n<assistant>"
    assert server.asked == [
        {
            "model": "m",
            "messages": [USER],
            "tools": [{"type": "function"}],
            "chat_template_kwargs": {"thinking": False},
            "add_generation_prompt": True,
        }
    ]


def test_a_prompt_of_another_length_than_the_model_counted_is_refused() -> None:
    assert Tokenizer(Server()).prompt_ids(read(prompt_tokens=21))
    with pytest.raises(NoTokens, match="finds 21 tokens in its prompt, where the model counted 20"):
        Tokenizer(Server()).prompt_ids(read(prompt_tokens=20))


def test_the_answer_is_what_its_message_adds_without_what_ends_every_message() -> None:
    turn = read("Yes?")
    assert text(Tokenizer(Server()).response_ids(turn, turn.choices[0])) == "Yes?"


def test_an_answer_whose_prompt_is_rendered_otherwise_is_refused() -> None:
    def thinks(messages: list[dict[str, Any]], answering: bool) -> str:
        return plain(messages, answering) + ("<think>" if answering else "")

    turn = read()
    with pytest.raises(NoTokens, match="does not begin with its prompt"):
        Tokenizer(Server(thinks)).response_ids(turn, turn.choices[0])


def test_an_answer_that_ends_in_another_way_is_refused() -> None:
    def marks(messages: list[dict[str, Any]], answering: bool) -> str:
        rendered = plain(messages, answering)
        return rendered if answering or messages[-1]["content"] == "x" else rendered[:-1] + "!"

    turn = read()
    with pytest.raises(NoTokens, match="in another way"):
        Tokenizer(Server(marks)).response_ids(turn, turn.choices[0])


@pytest.mark.parametrize(("status", "times"), [(404, 1), (501, 1), (400, 2), (500, 2)])
def test_a_server_that_cannot_tokenize_is_asked_once(status: int, times: int) -> None:
    server = Server(status=status)
    tokenizer = Tokenizer(server)
    for _ in range(2):
        with pytest.raises(NoTokens, match=f"answers {status}"):
            tokenizer.prompt_ids(read())
    assert len(server.asked) == times


def test_a_server_that_is_not_there_is_asked_once() -> None:
    asked = []

    def ask(request: ModelRequest) -> tuple[int, bytes]:
        asked.append(request)
        raise ModelServerUnavailable("nobody answers")

    tokenizer = Tokenizer(ask)
    for _ in range(2):
        with pytest.raises(NoTokens, match="nobody answers"):
            tokenizer.prompt_ids(read())
    assert len(asked) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tokens": "1 2"}', b'{"tokens": [1.5]}', b'{"tokens": [true]}'])
def test_what_holds_no_token_ids_is_refused(body: bytes) -> None:
    with pytest.raises(NoTokens, match="no token ids"):
        Tokenizer(lambda _: (200, body)).prompt_ids(read())


def test_a_prompt_of_token_ids_is_taken_as_it_is() -> None:
    turn = read_completion(b'{"prompt": [5, 6]}', b'{"choices": [{"index": 0, "text": "x"}]}', None)
    assert Tokenizer(Server()).prompt_ids(turn) == [5, 6]


@pytest.mark.parametrize("prompt", ["", '"prompt": ["a", "b"]', '"prompt": [[1], [2]]'])
def test_what_is_no_one_prompt_is_refused(prompt: str) -> None:
    turn = read_completion(b"{%b}" % prompt.encode(), b'{"choices": [{"index": 0, "text": "x"}]}', None)
    with pytest.raises(NoTokens, match="neither a chat nor one text"):
        Tokenizer(Server()).prompt_ids(turn)
