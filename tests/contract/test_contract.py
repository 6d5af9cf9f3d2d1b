"""What the service promises, whichever model server answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from openai import APIStatusError, OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from emulator.completion import Choice, read_completion
from emulator.trajectory import Status, TurnStatus
from examples import openai_tools

from .conftest import Emulator

Client = Callable[[str], OpenAI]

MESSAGES: list[Any] = [{"role": "user", "content": "What is 2 + 2? Was ergibt 2 + 2? 二加二等于几"}]


def body(**more: Any) -> bytes:
    document = {"model": "default", "messages": MESSAGES, "max_tokens": 16, "temperature": 0, **more}
    return json.dumps(document, ensure_ascii=False).encode()


def message_of(choice: Choice) -> dict[str, Any]:
    assert choice.message is not None
    return choice.message


def test_a_rollout_from_the_first_sample_to_the_reward(emulator: Emulator, runtime: Any, trajectory_id: str) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    first = runtime.sample(**rollout, Body=body())
    answer = first["Body"].read()
    assert first["ContentType"].startswith("application/json")
    message = json.loads(answer)["choices"][0]["message"]
    assert message["content"]
    history = [*MESSAGES, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": "And 3?"}]
    runtime.sample(**rollout, Body=body(messages=history))["Body"].read()
    assert emulator.trajectory(trajectory_id).status is Status.OPEN

    runtime.complete_rollout(**rollout)
    assert emulator.trajectory(trajectory_id).status is Status.READY
    runtime.update_reward(**rollout, Rewards=[0.5, 1.0])

    trajectory = emulator.trajectory(trajectory_id)
    assert (trajectory.status, trajectory.rewards, trajectory.turns) == (Status.REWARD_RECEIVED, [0.5, 1.0], 2)
    assert trajectory.eligible
    turns = emulator.turns(trajectory_id)
    assert [(turn.number, turn.status) for turn in turns] == [(0, TurnStatus.COMPLETED), (1, TurnStatus.COMPLETED)]
    assert (turns[0].request, turns[0].response) == (body(), answer)
    assert turns[0].arrived_at <= (turns[0].first_byte_at or 0) <= turns[0].ended_at <= turns[1].arrived_at


def test_a_failed_rollout_takes_its_reward_and_is_never_eligible(
    emulator: Emulator, runtime: Any, trajectory_id: str
) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    runtime.sample(**rollout, Body=body())["Body"].read()
    runtime.complete_rollout(**rollout, Status="failed")
    runtime.update_reward(**rollout, Rewards=[0.0])
    trajectory = emulator.trajectory(trajectory_id)
    assert (trajectory.status, trajectory.completion) == (Status.REWARD_RECEIVED, Status.FAILED)
    assert not trajectory.eligible


def test_after_the_seal_nothing_is_sampled(emulator: Emulator, runtime: Any, trajectory_id: str) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    runtime.sample(**rollout, Body=body())["Body"].read()
    runtime.complete_rollout(**rollout)
    for operation in (runtime.sample, runtime.sample_with_response_stream):
        with pytest.raises(runtime.exceptions.ValidationException, match="not in valid status"):
            operation(**rollout, Body=body())
    assert len(emulator.turns(trajectory_id)) == 1


def test_a_stream_arrives_as_the_model_wrote_it_and_is_stored_whole(
    emulator: Emulator, runtime: Any, trajectory_id: str
) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    sent = body(stream=True, stream_options={"include_usage": True})
    answer = runtime.sample_with_response_stream(**rollout, Body=sent)
    assert answer["ContentType"].startswith("text/event-stream")
    received = b"".join(answer["Body"].iter_chunks(7))
    (turn,) = emulator.turns(trajectory_id)
    assert (turn.request, turn.response, turn.status) == (sent, received, TurnStatus.COMPLETED)
    completion = read_completion(turn.request, turn.response, turn.content_type)
    assert completion.problem is None
    assert message_of(completion.choices[0])["content"]
    assert completion.usage is not None
    assert completion.usage.completion_tokens


def test_the_openai_client_streams_through_the_other_door(
    emulator: Emulator, openai: Client, trajectory_id: str
) -> None:
    whole = openai(trajectory_id).chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=16, temperature=0
    )
    state = ChatCompletionStreamState()
    with openai(trajectory_id).chat.completions.create(
        model="default", messages=MESSAGES, max_tokens=16, temperature=0, stream=True
    ) as stream:
        pieces = [state.handle_chunk(chunk) and chunk for chunk in stream]
    assert len(pieces) > 1
    assert state.current_completion_snapshot.choices[0].message.content == whole.choices[0].message.content
    assert [turn.status for turn in emulator.turns(trajectory_id)] == [TurnStatus.COMPLETED] * 2


def test_plain_completions_are_turns_too(emulator: Emulator, openai: Client, trajectory_id: str) -> None:
    answer = openai(trajectory_id).completions.create(model="default", prompt="Two plus two is", max_tokens=8)
    assert answer.choices[0].text
    (turn,) = emulator.turns(trajectory_id)
    assert turn.path == "/v1/completions"
    assert read_completion(turn.request, turn.response, turn.content_type).choices[0].text == answer.choices[0].text


def test_a_sample_with_a_prompt_is_a_plain_completion(emulator: Emulator, runtime: Any, trajectory_id: str) -> None:
    sent = json.dumps({"model": "default", "prompt": "Two plus two is", "max_tokens": 8}).encode()
    answer = runtime.sample(JobArn=emulator.job_arn, TrajectoryId=trajectory_id, Body=sent)
    assert json.loads(answer["Body"].read())["choices"][0]["text"]


def test_the_model_is_called_default(openai: Client, trajectory_id: str) -> None:
    assert "default" in [model.id for model in openai(trajectory_id).models.list()]


def test_token_ids_and_logprobs_can_be_read_from_a_turn(emulator: Emulator, runtime: Any, trajectory_id: str) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    asked = {"logprobs": True, "top_logprobs": 0, "return_token_ids": True}
    runtime.sample(**rollout, Body=body(**asked))["Body"].read()
    runtime.sample_with_response_stream(**rollout, Body=body(**asked, stream=True))["Body"].read()
    whole, streamed = (
        read_completion(turn.request, turn.response, turn.content_type) for turn in emulator.turns(trajectory_id)
    )
    assert whole.usage is not None
    for completion in (whole, streamed):
        choice = completion.choices[0]
        assert choice.token_ids is not None
        assert choice.logprobs is not None
        assert completion.prompt_token_ids
        assert len(choice.token_ids) == len(choice.logprobs) == whole.usage.completion_tokens
        assert all(each.logprob is not None and each.logprob <= 0 for each in choice.logprobs)
        assert all(isinstance(token, int) for token in choice.token_ids)
    assert whole.choices[0].token_ids == streamed.choices[0].token_ids
    assert whole.prompt_token_ids == streamed.prompt_token_ids
    assert "".join(each.token for each in whole.choices[0].logprobs or []) == message_of(whole.choices[0])["content"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_required_tool_call_satisfies_the_tools_schema(
    stream: bool, emulator: Emulator, runtime: Any, trajectory_id: str
) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    sent = body(tools=[openai_tools.TOOL], tool_choice="required", max_tokens=64, stream=stream)
    operation = runtime.sample_with_response_stream if stream else runtime.sample
    operation(**rollout, Body=sent)["Body"].read()
    (turn,) = emulator.turns(trajectory_id)
    choice = read_completion(turn.request, turn.response, turn.content_type).choices[0]
    (call,) = message_of(choice)["tool_calls"]
    assert call["function"]["name"] == "calculator"
    jsonschema.validate(json.loads(call["function"]["arguments"]), openai_tools.TOOL["function"]["parameters"])


def test_an_answer_can_be_bound_to_a_json_schema(openai: Client, trajectory_id: str) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    }
    answer = openai(trajectory_id).chat.completions.create(
        model="default",
        messages=MESSAGES,
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}},
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)


def test_what_the_model_refuses_is_an_error_of_the_service_with_its_own_words(
    emulator: Emulator, runtime: Any, trajectory_id: str
) -> None:
    rollout = {"JobArn": emulator.job_arn, "TrajectoryId": trajectory_id}
    for operation in (runtime.sample, runtime.sample_with_response_stream):
        with pytest.raises(runtime.exceptions.ValidationException, match="messages"):
            operation(**rollout, Body=b'{"model": "default"}')
    assert [(turn.status, turn.http_status) for turn in emulator.turns(trajectory_id)] == [
        (TurnStatus.FAILED, 400),
        (TurnStatus.FAILED, 400),
    ]


def test_what_the_model_refuses_passes_through_the_other_door_untouched(
    emulator: Emulator, openai: Client, trajectory_id: str
) -> None:
    with pytest.raises(APIStatusError) as caught:
        openai(trajectory_id).chat.completions.create(model="default", messages=MESSAGES, temperature=-5)
    assert caught.value.status_code == 400
    (turn,) = emulator.turns(trajectory_id)
    assert (turn.status, turn.response) == (TurnStatus.FAILED, caught.value.response.content)


def test_clients_at_once_each_get_their_own_answer(emulator: Emulator, runtime: Any, trajectory_id: str) -> None:
    def ask(number: int) -> bytes:
        rollout = {"JobArn": emulator.job_arn, "TrajectoryId": f"{trajectory_id}-{number % 4}"}
        content: bytes = runtime.sample(**rollout, Body=body(user=str(number)))["Body"].read()
        return content

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(16)))
    stored: dict[str, bytes] = {}
    for number in range(4):
        turns = emulator.turns(f"{trajectory_id}-{number}")
        assert [turn.number for turn in turns] == [0, 1, 2, 3]
        stored |= {json.loads(turn.request)["user"]: turn.response for turn in turns}
    assert stored == {str(number): answer for number, answer in enumerate(answers)}


def test_the_stored_text_is_what_the_model_said(emulator: Emulator, openai: Client, trajectory_id: str) -> None:
    answer = openai(trajectory_id).chat.completions.create(model="default", messages=MESSAGES, max_tokens=16)
    (turn,) = emulator.document(trajectory_id)["turns"]
    assert turn["choices"][0]["message"]["content"] == answer.choices[0].message.content
    assert turn["usage"]["completion_tokens"] == answer.usage.completion_tokens if answer.usage else False
    assert turn["request"]["messages"] == MESSAGES
