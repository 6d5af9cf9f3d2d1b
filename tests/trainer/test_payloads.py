"""Rollout requests: each spelling to the letter, and both in one document."""

from __future__ import annotations

from typing import Any

from emulator.trainer.payloads import Destination, InferenceParameters, Spelling, rollout_request
from emulator.trainer.rollouts import Row
from tests.conftest import JOB_ARN

ROW = Row(3, "What is 2 + 2?", {"prompt": "What is 2 + 2?", "answer": "4"})
TO = Destination(JOB_ARN, "3-0-abc", "http://127.0.0.1:4580", "us-west-2")

DOCUMENTED: dict[str, Any] = {
    "prompt": "What is 2 + 2?",
    "metadata": {
        "jobArn": JOB_ARN,
        "rolloutId": "3-0-abc",
        "endpoint": "http://127.0.0.1:4580",
        "region": "us-west-2",
    },
    "inferenceParams": {"temperature": 0.5, "topP": 0.9, "maxTokens": 64},
}
SDK: dict[str, Any] = {
    "instance": {"prompt": "What is 2 + 2?", "answer": "4"},
    "metadata": {
        "job_arn": JOB_ARN,
        "trajectory_id": "3-0-abc",
        "endpoint": "http://127.0.0.1:4580",
        "region": "us-west-2",
    },
    "inference_params": {"temperature": 0.5, "max_tokens": 64, "top_p": 0.9},
}


def request(*spelling: Spelling) -> dict[str, Any]:
    return rollout_request(ROW, TO, InferenceParameters(0.5, 0.9, 64), *spelling)


def test_each_spelling_is_the_one_that_its_agents_know() -> None:
    assert request(Spelling.DOCUMENTED) == DOCUMENTED
    assert request(Spelling.SDK) == SDK


def test_by_default_both_stand_in_one_document() -> None:
    assert request() == {**DOCUMENTED, **SDK, "metadata": {**DOCUMENTED["metadata"], **SDK["metadata"]}}


def test_a_real_jobs_parameters_are_the_default() -> None:
    sent = rollout_request(ROW, TO, InferenceParameters())["inferenceParams"]
    assert sent == {"temperature": 1.0, "topP": 1.0, "maxTokens": 4096}
