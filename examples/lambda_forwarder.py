"""A Lambda function that hands each rollout on, from the documented form to an agent that takes the SDK's.

It has returned before the rollout is done. The agent, which AGENT_URL names, works on and calls back.

uvicorn examples.boto3_streaming:app --port 8080 & export AGENT_URL=http://127.0.0.1:8080/rollout
job-runtime-local rollout examples/arithmetic.jsonl --agent lambda:examples/lambda_forwarder.py --payload documented
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.request import Request, urlopen


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Hand a rollout on. Who answers with `errorType` has refused it."""
    try:
        request = rollout_request(json.loads(event["body"]) if "body" in event else event)
    except (KeyError, TypeError, ValueError) as error:
        return {"errorType": "ValidationError", "errorMessage": f"no rollout request: {error!r}"}
    body, headers = json.dumps(request).encode(), {"Content-Type": "application/json"}
    try:
        with urlopen(Request(os.environ["AGENT_URL"], body, headers), timeout=30) as answer:
            return {"statusCode": answer.status}
    except OSError as error:  # it refused, or is not there
        return {"errorType": "InternalServerError", "errorMessage": f"the agent did not take the rollout: {error}"}


def rollout_request(documented: dict[str, Any]) -> dict[str, Any]:
    """The same request as the SDK has it. Raises KeyError, TypeError."""
    metadata = documented["metadata"]
    region = metadata.get("region") or os.environ["AWS_REGION"]
    parameters = documented.get("inferenceParams") or {}
    return {
        "instance": {"prompt": documented["prompt"]},
        "metadata": {
            "job_arn": metadata["jobArn"],
            "trajectory_id": metadata["rolloutId"],
            "endpoint": metadata.get("endpoint") or f"https://job-runtime.sagemaker.{region}.api.aws",
            "region": region,
        },
        "inference_params": {
            "temperature": parameters.get("temperature"),
            "top_p": parameters.get("topP"),
            "max_tokens": parameters.get("maxTokens"),
        },
    }
