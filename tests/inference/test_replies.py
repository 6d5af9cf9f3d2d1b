"""What a rule's reply makes of an answer: errors, delays, rhythms, truncations, log probabilities, templates."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from emulator.inference.model_server import BrokenAnswer, ModelRequest
from emulator.inference.scripted import Error, Reply, Request, Rhythm, Rule, Rules, ScriptedServer, ToolCall
from emulator.inference.scripted.reply import Unit
from emulator.inference.scripted.template import BadTemplate
from emulator.inference.scripted.tokens import pieces
from emulator.inference.scripted.writing import chunks
from tests import virtual_time
from tests.inference.test_scripted import CALCULATOR, CHAT, TEXT, answer_to, ask, events_of, send
from tests.inference.test_scripted_streams import gathered

SENTENCE = "The answer is 42,\nor so it seems to me."


def saying(*replies: Reply, **conditions: Any) -> ScriptedServer:
    return ScriptedServer(Rules([Rule(replies, **conditions)], default=None))


def error_of(error: Error, path: str = CHAT, **request: Any) -> tuple[int, dict[str, Any]]:
    status, content_type, received = send(
        path, {**ask(), "prompt": "Once", **request}, server=saying(Reply(error=error))
    )
    assert content_type == "application/json"
    body = json.loads(b"".join(received))["error"]
    assert isinstance(body, dict)
    return status, body


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_written_as_vllm_writes_it(path: str, stream: bool) -> None:
    status, body = error_of(Error(503, "Still loading"), path, stream=stream, n=2)
    assert status == 503
    assert body == {"message": "Still loading", "type": "ServiceUnavailableError", "param": None, "code": 503}


def test_or_as_openai_does() -> None:
    status, body = error_of(Error(429, "Slow down", style="openai"))
    assert status == 429
    assert body == {"message": "Slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    assert error_of(Error(500, style="openai"))[1]["type"] == "server_error"


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529, 599]
)
@pytest.mark.parametrize("style", ["vllm", "openai"])
def test_every_status_has_words(status: int, style: Any) -> None:
    found, body = error_of(Error(status, style=style))
    assert found == status
    assert body["message"].endswith("(scripted)")
    assert body["type"]


def test_what_an_error_says_is_what_is_given() -> None:
    error = Error(400, "Too long", type="context", code="context_length_exceeded", param="messages", style="openai")
    assert error_of(error)[1] == {
        "message": "Too long",
        "type": "context",
        "param": "messages",
        "code": "context_length_exceeded",
    }


@pytest.mark.parametrize("after", [3, 0.5, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_an_error_may_say_when_to_come_again(after: str | float) -> None:
    async def headers() -> Any:
        server = saying(Reply(error=Error(429, retry_after=after)))
        return (await server.send(ModelRequest(CHAT, json.dumps(ask()).encode()))).headers

    assert asyncio.run(headers())["retry-after"] == str(after)


def times(server: ScriptedServer, **request: Any) -> list[float]:
    """When the head of an answer comes, and each piece of it."""

    async def exchange() -> list[float]:
        loop = asyncio.get_running_loop()
        answer = await server.send(ModelRequest(CHAT, json.dumps(ask(**request)).encode()))
        return [loop.time(), *[loop.time() async for _ in answer]]

    return virtual_time.run(exchange())


@pytest.mark.parametrize("reply", [Reply("Late", delay=2.0), Reply(error=Error(), delay=2.0)])
def test_a_delay_is_waited_for(reply: Reply) -> None:
    assert times(saying(reply)) == pytest.approx([2, 2])


def test_a_stream_comes_in_its_rhythm() -> None:
    rhythm = Rhythm(by="word", size=3, first=1.0, pause=0.25)
    moments = times(saying(Reply(SENTENCE, delay=2.0, rhythm=rhythm)), stream=True)
    assert moments[:2] == pytest.approx([2, 3])
    assert len(moments) == 1 + 1 + 4 + 1 + 1  # the head, the role, ten words, the end, [DONE]
    assert [after - before for before, after in pairwise(moments[1:])] == pytest.approx([0.25] * 6)


@pytest.mark.parametrize(
    ("by", "size", "expected"),
    [
        ("token", 100, [SENTENCE]),
        ("word", 4, ["The answer is 42,", "\nor so it seems", " to me."]),
        ("character", 30, [SENTENCE[:30], SENTENCE[30:]]),
        ("line", 1, ["The answer is 42,\n", "or so it seems to me."]),
        ("all", 1, [SENTENCE]),
    ],
)
def test_text_is_cut_as_it_is_said(by: Unit, size: int, expected: list[str]) -> None:
    server = saying(Reply(SENTENCE, rhythm=Rhythm(by=by, size=size)))
    deltas = [event["choices"][0]["delta"] for event in events_of(CHAT, server, **ask())]
    assert [delta["content"] for delta in deltas if delta.get("content")] == expected
    texts = [event["choices"][0]["text"] for event in events_of(TEXT, server, prompt="Once")]
    assert [text for text in texts if text] == expected


@given(st.text(), st.sampled_from(["token", "character", "word", "line", "all"]), st.integers(1, 5))
def test_however_text_is_cut_all_of_it_is_sent_with_all_of_its_tokens(text: str, by: Unit, size: int) -> None:
    found = list(chunks(pieces(text), Rhythm(by=by, size=size)))
    assert "".join(chunk for chunk, _ in found) == text
    assert [token for _, tokens in found for token in tokens] == pieces(text)
    assert all(chunk for chunk, _ in found)


CALL = ToolCall("calculator", {"expression": "6 * 7"})
FULL = Reply(
    SENTENCE, [CALL, ToolCall("calculator", '{"broken": ', id="call_mine")], "Let me see. ", logprobs=[-0.5, -3]
)


@pytest.mark.parametrize("more", [{}, {"max_tokens": 9}, {"stop": "42"}, {"n": 2}])
@pytest.mark.parametrize("by", ["token", "character", "word", "line", "all"])
def test_a_stream_in_any_rhythm_says_what_the_whole_answer_says(by: Unit, more: dict[str, Any]) -> None:
    reply = Reply(FULL.content, FULL.tool_calls, FULL.reasoning, logprobs=FULL.logprobs, rhythm=Rhythm(by=by, size=2))
    asked = ask(return_token_ids=True, logprobs=True, top_logprobs=2, **more)
    whole = ChatCompletion.model_validate(answer_to(CHAT, saying(reply), **asked))
    streamed = gathered(events_of(CHAT, saying(reply), **asked))
    for choice in whole.choices:
        found = streamed[choice.index]
        assert found["message"]["content"] == choice.message.content
        assert found["message"]["reasoning"] == getattr(choice.message, "reasoning", None)
        functions = [call.to_dict()["function"] for call in choice.message.tool_calls or ()]
        assert [call["function"] for call in found["calls"]] == functions
        assert found["finish_reason"] == choice.finish_reason
        assert found["ids"] == getattr(choice, "token_ids", None)
        assert choice.logprobs is not None
        assert found["lp"] == [entry.to_dict() for entry in choice.logprobs.content or ()]


def test_arguments_are_an_object_or_text_as_it_is_and_an_id_is_kept() -> None:
    choice = answer_to(CHAT, saying(FULL), **ask())["choices"][0]
    one, two = choice["message"]["tool_calls"]
    assert one["function"] == {"name": "calculator", "arguments": '{"expression":"6 * 7"}'}
    assert two == {
        "id": "call_mine",
        "type": "function",
        "function": {"name": "calculator", "arguments": '{"broken": '},
    }
    assert choice["finish_reason"] == "tool_calls"
    named = {"type": "function", "function": {"name": "calculator"}}
    forced = answer_to(CHAT, saying(FULL), **ask(tools=[CALCULATOR], tool_choice=named))
    assert forced["choices"][0]["finish_reason"] == "stop"


def test_answers_that_rules_may_give_differently_have_ids_of_their_own() -> None:
    async def ids() -> list[str]:
        server, body = saying(Reply("a"), Reply("b")), json.dumps(ask()).encode()
        found = []
        for trajectory in ("t1", "t1", "t2"):
            answer = await server.send(ModelRequest(CHAT, body, trajectory_id=trajectory))
            found.append(json.loads(b"".join([piece async for piece in answer]))["id"])
        return found

    first = asyncio.run(ids())
    assert len(set(first)) == 3
    assert asyncio.run(ids()) == first


def test_log_probabilities_are_given_one_by_one_for_all_or_not_at_all() -> None:
    def logprobs(given: Any) -> list[float]:
        choice = answer_to(CHAT, saying(Reply("one two three", logprobs=given)), **ask(logprobs=True))["choices"][0]
        return [entry["logprob"] for entry in choice["logprobs"]["content"]]

    made_up = logprobs(None)
    assert logprobs(-0.25) == [-0.25] * 3
    assert logprobs([-1, -2]) == [-1, -2, made_up[2]]
    assert logprobs(0) == [0] * 3
    text = answer_to(TEXT, saying(Reply("one two", logprobs=[-1, -2])), prompt="Once", logprobs=3)["choices"][0]
    assert text["logprobs"]["token_logprobs"] == [-1, -2]
    assert answer_to(CHAT, saying(Reply("one", logprobs=-1)), **ask())["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(("limit", "more"), [(3, {}), (3, {"max_tokens": 9}), (9, {"max_tokens": 3})])
def test_a_truncated_answer_ends_with_length(limit: int, more: dict[str, Any]) -> None:
    answer = answer_to(CHAT, saying(Reply(SENTENCE, max_tokens=limit)), **ask(**more))
    assert answer["choices"][0]["message"]["content"] == "The answer is"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def broken(path: str, server: ScriptedServer, **request: Any) -> list[bytes]:
    """What of an answer comes before it breaks off."""
    received: list[bytes] = []

    async def exchange() -> None:
        answer = await server.send(ModelRequest(path, json.dumps({**ask(), "prompt": "Once", **request}).encode()))
        assert answer.status == 200
        try:
            async for piece in answer:
                received.append(piece)  # noqa: PERF401 - what came before it breaks
        except BrokenAnswer:
            return
        raise AssertionError("it is whole")

    asyncio.run(exchange())
    return received


@pytest.mark.parametrize("after", [0, 3, 100])
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_stream_breaks_off_where_it_is_told_to(path: str, after: int) -> None:
    received = broken(path, saying(Reply(SENTENCE, break_after=after)), stream=True)
    choices = [json.loads(event.removeprefix(b"data: "))["choices"][0] for event in received]
    said = [choice["delta"].get("content", "") if path == CHAT else choice["text"] for choice in choices]
    assert "".join(said) == "".join(pieces(SENTENCE)[:after])
    assert all(choice["finish_reason"] is None for choice in choices)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_whole_answer_breaks_off_in_the_middle(path: str) -> None:
    (half,) = broken(path, saying(Reply(SENTENCE, break_after=5)))
    with pytest.raises(json.JSONDecodeError):
        json.loads(half)


def templated(content: str, last: str = "6*7", **which: Any) -> str | None:
    rules = Rules([Rule(Reply(content, template=True), last=r"(?P<left>\d+)\*(\d+)")], seed=1)
    return rules.replies(Request(ask(last), **which), 1)[0].content


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain {text}", "plain {text}"),
        ("{{ match[0] }} is {{ match.left | int * match[2] | int }}", "6*7 is 42"),
        ("{{ last }}, {{ last_user }}, {{ last_tool }}", "6*7, 6*7, None"),
        ("{{ row.answer }} {{ row['items'][0] }}", "42 a"),
        ("{{ trajectory }} {{ job }} {{ model }} {{ turn }} {{ choice }} {{ count }}", "t1 my-job default 1 0 0"),
        ("{% if turn == 1 %}first{% else %}later{% endif %}", "first"),
        ("{{ row | tojson }}", '{"answer": 42, "items": ["a"]}'),
        ("{{ tools | length }}{# a comment #}", "0"),
    ],
)
def test_a_template_knows_what_was_asked(template: str, text: str) -> None:
    row = '{"answer": 42, "items": ["a"]}'
    assert templated(template, trajectory="t1", job="my-job", instance=row) == text


def test_a_template_that_reads_json_sees_the_last_message() -> None:
    rules = Rules([Rule(Reply("{{ json.result * 2 }}", template=True))])
    assert rules.replies(Request(ask('{"result": 21}')), 1)[0].content == "42"


def test_chance_in_a_template_repeats() -> None:
    drawn = "{{ random.randint(1, 1000) }} {{ ['a', 'b', 'c'] | random }}"
    assert templated(drawn, trajectory="t1") == templated(drawn, trajectory="t1") != templated(drawn, trajectory="t2")


def test_templates_are_replaced_wherever_there_is_text_and_keep_types_in_arguments() -> None:
    arguments = {"number": "{{ turn }}", "text": "turn {{ turn }}", "list": ["{{ [turn] }}", 1], "{{ turn }}": None}
    arguments |= {"below": "{{ -turn }}", "trimmed": " {{- turn -}} ", "two": "{{ turn }}{{ turn }}"}
    reply = Reply(
        "{{ turn }}",
        [ToolCall("t{{ turn }}", arguments), ToolCall("raw", '{"turn": {{ turn }}}')],
        "{{ turn }}",
        template=True,
    )
    (found,) = Rules([Rule(reply)]).replies(Request(ask()), 1)
    assert (found.content, found.reasoning) == ("1", "1")
    one, two = found.tool_calls
    more = {"below": -1, "trimmed": 1, "two": "11"}
    assert one == ToolCall("t1", {"number": 1, "text": "turn 1", "list": [[1], 1], "{{ turn }}": None, **more})
    assert two.arguments == '{"turn": 1}'
    refused = Reply(error=Error(400, "turn {{ turn }}"), template=True)
    assert Rules([Rule(refused)]).replies(Request(ask()), 1)[0].error == Error(400, "turn 1")


def test_a_text_is_no_template_unless_the_reply_says_so() -> None:
    assert answer_to(CHAT, saying(Reply("{{ x }}")), **ask())["choices"][0]["message"]["content"] == "{{ x }}"


@pytest.mark.parametrize(
    "template",
    [
        *("{{ nothing }}", "{{ row.answer }}", "{{ 1 / 0 }}", "{{ last.__class__ }}", "{{ match[7] }}", "{% for %}"),
        *("{{", "{{ '' + 1 }}"),
    ],
)
def test_a_template_that_fails_says_so_in_the_answer(template: str) -> None:
    for reply in (Reply(template, template=True), Reply(tool_calls=[ToolCall("a", {"b": template})], template=True)):
        status, _, received = send(CHAT, ask("1*2"), server=saying(reply, last=r"1\*2"))
        assert status == 500
        error = json.loads(b"".join(received))["error"]
        assert error["type"] == "ScriptError"
        assert "template" in error["message"]


@pytest.mark.parametrize(
    "expression", ["'a' * 10 ** 12", "10 ** 12 * 'a'", "[0] * 10 ** 12", "9 ** (9 ** 9)", "range(10 ** 9) | list"]
)
def test_a_template_that_would_take_all_memory_fails_instead(expression: str) -> None:
    for template in (f"{{{{ {expression} }}}}", f"{{% set x = {expression} %}}"):
        with pytest.raises(BadTemplate, match=r"(?i)too (large|big)"):
            templated(template)


def test_products_and_powers_of_a_sane_size_are_what_they_are() -> None:
    assert templated("{{ 'ab' * 3 }} {{ 2 ** 10 }} {{ 2 * 21 }} {{ 2 ** -1 }}") == "ababab 1024 42 0.5"


def test_a_function_that_fails_is_named_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    def fails(request: Request) -> str:
        raise KeyError("what I wanted")

    status, _, received = send(CHAT, ask(), server=ScriptedServer(Rules([Rule(fails)])))
    assert (status, json.loads(received[0])["error"]["message"]) == (
        500,
        "The scripted model's rules failed: KeyError: 'what I wanted'",
    )
    assert "what I wanted" in caplog.text


def test_a_request_that_no_rule_answers_is_refused_with_the_reasons() -> None:
    status, _, received = send(CHAT, ask(), server=saying(Reply("x"), last="nothing"))
    error = json.loads(received[0])["error"]
    assert (status, error["type"]) == (400, "NoRuleMatches")
    assert "last: wanted /nothing/, found 'Hello?'" in error["message"]
