"""Text completions of the scripted model server."""

from __future__ import annotations

import pytest
from openai.types import Completion

from emulator.inference.scripted.tokens import pieces, token_id
from tests.inference.test_scripted import TEXT, answer_to


def test_a_prompt_is_answered_with_the_whole_text() -> None:
    answer = Completion.model_validate(answer_to(TEXT, prompt="Once upon a time"))
    assert 'You said: "Once upon a time" (turn 1).' in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("text_completion", "default")
    assert answer.id.startswith("cmpl-")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(pieces(answer.choices[0].text))


def test_each_prompt_gets_n_choices() -> None:
    answer = answer_to(TEXT, prompt=["One", "Two words"], n=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    quoted = [
        ('"One" (turn 1)', '"One" (turn 1, choice 2)'),
        ('"Two words" (turn 1)', '"Two words" (turn 1, choice 2)'),
    ]
    for choice, said in zip(answer["choices"], [said for pair in quoted for said in pair], strict=True):
        assert said in choice["text"]
    assert answer["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize(("prompt", "ids"), [([5, 6, 7], [[5, 6, 7]]), ([[5], [6, 7]], [[5], [6, 7]])])
def test_a_prompt_may_be_token_ids(prompt: object, ids: list[list[int]]) -> None:
    answer = answer_to(TEXT, prompt=prompt, return_token_ids=True)
    assert [choice["prompt_token_ids"] for choice in answer["choices"]] == ids
    assert answer["usage"]["prompt_tokens"] == 3


def test_echo_puts_the_prompt_before_the_answer() -> None:
    plain, echoed = (answer_to(TEXT, prompt="Once upon", echo=echo)["choices"][0]["text"] for echo in (False, True))
    assert echoed == "Once upon" + plain


def test_logprobs_spell_the_text_and_say_where_each_token_is() -> None:
    choice = Completion.model_validate(answer_to(TEXT, prompt="Grüße", logprobs=3)).choices[0]
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert "".join(found.tokens) == choice.text
    assert found.text_offset is not None
    assert all(choice.text.startswith(token, at) for token, at in zip(found.tokens, found.text_offset, strict=True))
    assert all(logprob < 0 for logprob in found.token_logprobs or [0.0])
    assert all(len(top) == 3 for top in found.top_logprobs or [{}])


def test_what_is_echoed_has_no_log_probability() -> None:
    choice = answer_to(TEXT, prompt="Once upon", echo=True, logprobs=0)["choices"][0]
    assert choice["logprobs"]["token_logprobs"][:2] == [None, None]
    assert choice["logprobs"]["top_logprobs"][:2] == [None, None]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert all(
        list(top) == [token]
        for top, token in zip(choice["logprobs"]["top_logprobs"][2:], choice["logprobs"]["tokens"][2:], strict=True)
    )


def test_token_ids_belong_to_the_choice() -> None:
    choice = answer_to(TEXT, prompt="Once upon", return_token_ids=True)["choices"][0]
    assert choice["prompt_token_ids"] == [token_id("Once"), token_id(" upon")]
    assert choice["token_ids"] == [token_id(piece) for piece in pieces(choice["text"])]


def test_max_tokens_and_stop_end_a_text() -> None:
    cut = answer_to(TEXT, prompt="Once", max_tokens=3)["choices"][0]
    assert (len(pieces(cut["text"])), cut["finish_reason"]) == (3, "length")
    stopped = answer_to(TEXT, prompt="Once", stop=["model"])["choices"][0]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", "model")
    assert stopped["text"].endswith("scripted ")


def test_a_text_may_be_asked_for_in_a_form() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert answer_to(TEXT, prompt="Once", response_format=wanted)["choices"][0]["text"] == '{"a":1}'
