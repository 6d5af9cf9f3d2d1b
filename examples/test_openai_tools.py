"""The tests of an agent, `openai_tools`: what it does with what a model may say. No model is needed for them.

pytest examples/test_openai_tools.py      # pip install pytest job-runtime-local
"""

from __future__ import annotations

import pytest

from emulator.testing import JobRuntime
from examples.openai_tools import roll_out

ROW = {"prompt": "What is 12 * 7?", "answer": "84"}


def test_it_calls_the_tool_and_gets_its_reward_for_the_right_answer(job_runtime: JobRuntime) -> None:
    job_runtime.model.reply(tool_calls=[("calculator", {"expression": "12 * 7"})])
    job_runtime.model.reply("The answer is 84.", last_tool="12 \\* 7 = 84")

    assert roll_out(job_runtime.new_rollout(instance=ROW).payload) == 1.0

    trajectory = job_runtime.trajectory()
    assert (trajectory.status, trajectory.rewards) == ("reward-received", [1.0])
    assert [turn.request.json()["tool_choice"] for turn in trajectory.turns] == ["required", "auto"]


@pytest.mark.parametrize("answer", ["The answer is 74.", "84, or 85.", "I do not know."])
def test_another_answer_gets_no_reward(job_runtime: JobRuntime, answer: str) -> None:
    job_runtime.model.reply(answer)
    assert roll_out(job_runtime.new_rollout(instance=ROW).payload) == 0.0
    assert job_runtime.trajectory().eligible


def test_a_tool_that_is_called_wrongly_says_so_and_the_model_may_try_again(job_runtime: JobRuntime) -> None:
    job_runtime.model.reply(tool_calls=[("calculator", {"expression": "twelve times seven"})])
    job_runtime.model.reply(tool_calls=[("calculator", {"expression": "12 * 7"})], last_tool="^error: ")
    job_runtime.model.reply("84", last_tool="84$")
    assert roll_out(job_runtime.new_rollout(instance=ROW).payload) == 1.0


def test_a_model_that_never_stops_calling_is_left_after_six_turns(job_runtime: JobRuntime) -> None:
    job_runtime.model.reply(tool_calls=[("calculator", {"expression": "1 + 1"})], times=None)
    assert roll_out(job_runtime.new_rollout(instance=ROW).payload) == 0.0
    assert len(job_runtime.trajectory().turns) == 6


def test_a_call_that_makes_no_sense_fails_the_rollout(job_runtime: JobRuntime) -> None:
    job_runtime.model.reply(tool_calls=[("calculator", {"sum": "12 * 7"})])
    roll_out(job_runtime.new_rollout(instance=ROW).payload)
    assert (job_runtime.trajectory().completion, job_runtime.trajectory().eligible) == ("failed", False)


def test_a_model_that_refuses_fails_the_rollout(job_runtime: JobRuntime) -> None:
    job_runtime.model.error(400, "This model's maximum context length is 2048 tokens.")
    roll_out(job_runtime.new_rollout(instance=ROW).payload)
    assert job_runtime.trajectory().completion == "failed"


def test_it_samples_as_the_trainer_wants_it(job_runtime: JobRuntime) -> None:
    job_runtime.model.reply("84")
    wanted = {"temperature": 0.5, "max_tokens": 64, "top_p": 0.9}
    roll_out({**job_runtime.new_rollout(instance=ROW).payload, "inference_params": wanted})
    assert wanted.items() <= job_runtime.trajectory().turns[0].request.json().items()
