"""An agent as a Lambda function: it asks until the answer is right, and is rewarded for being quick."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import boto3

MAX_TURNS = 3


@cache
def runtime(endpoint: str, region: str) -> Any:
    """One client for all rollouts."""
    return boto3.client("sagemakerjobruntime", endpoint_url=endpoint, region_name=region)


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Do one rollout."""
    metadata, row = event["metadata"], event["instance"]
    client = runtime(metadata["endpoint"], metadata["region"])
    rollout = {"JobArn": metadata["jobArn"], "TrajectoryId": metadata["rolloutId"]}
    messages: list[dict[str, Any]] = [{"role": "user", "content": row["prompt"]}]
    reward = 0.0
    for turn in range(1, MAX_TURNS + 1):
        body = {"model": "default", "messages": messages, "logprobs": True, "return_token_ids": True}
        answer = json.loads(client.sample(**rollout, Body=json.dumps(body).encode())["Body"].read())
        text = answer["choices"][0]["message"]["content"]
        if row["answer"] in re.findall(r"-?\d+", text):
            reward = 1 / turn
            break
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Look again."}]
    client.complete_rollout(**rollout)
    client.update_reward(**rollout, Rewards=[reward])
    return {"statusCode": 200}
