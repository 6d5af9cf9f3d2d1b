"""What somebody writes who trains agents with SageMaker: nothing of it knows of the emulator.

python train.py REPORT      # what came of it is written there, as JSON
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train.agent_rft_job import AgentRFTJob
from sagemaker.train.custom_agent_lambda import CustomAgentLambda
from sagemaker.train.multi_turn_rl_trainer import MultiTurnRLTrainer

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "examples" / "arithmetic.jsonl"
MODEL = "huggingface-reasoning-qwen3-4b"
BUCKET = "training-data"
ACCOUNT = "us-west-2:123456789012"
FUNCTION = f"arn:aws:lambda:{ACCOUNT}:function"
RUNTIME = "arithmetic-AbCdEfGhIj"
MLFLOW = f"arn:aws:sagemaker:{ACCOUNT}:mlflow-app/app-local"


def upload() -> None:
    """The bucket with the data, eight prompts to train with, three to validate with."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    rows = DATA.read_text().splitlines()
    s3.put_object(Bucket=BUCKET, Key="train.jsonl", Body="\n".join(rows[:8]).encode())
    s3.put_object(Bucket=BUCKET, Key="validation.jsonl", Body="\n".join(rows[8:11]).encode())


def trainer(agent: str | CustomAgentLambda, name: str, **more: Any) -> MultiTurnRLTrainer:
    """A trainer of two small steps."""
    made = MultiTurnRLTrainer(
        model=MODEL,
        agent_env=agent,
        training_dataset=f"s3://{BUCKET}/train.jsonl",
        s3_output_path=f"s3://{BUCKET}/{name}",
        mlflow_app_arn=MLFLOW,
        accept_eula=True,
        base_job_name=name,
        **more,
    )
    made.hyperparameters.global_batch_size = 3
    made.hyperparameters.group_size = 4
    made.hyperparameters.max_steps = 2
    made.hyperparameters.rollout_max_retries = 0
    return made


def lists() -> dict[str, Any]:
    """What there is to choose from."""
    return {
        "models": MultiTurnRLTrainer.list_supported_models(),
        "runtimes": MultiTurnRLTrainer.list_bedrock_agentcore_runtimes(),
    }


def lambda_agent() -> dict[str, Any]:
    """Train with a Lambda function, and look at the job in every way."""
    made = trainer(f"{FUNCTION}:arithmetic", "lambda", validation_dataset=f"s3://{BUCKET}/validation.jsonl")
    made.hyperparameters.val_every = 1
    dry = made.train(dry_run=True)
    before = [job.job_name for job in AgentRFTJob.get_all()]
    with contextlib.redirect_stdout(io.StringIO()) as waited:
        job = made.train(wait=True)
    with contextlib.redirect_stdout(io.StringIO()) as streamed:
        made.stream_logs(poll=1)
    attached = MultiTurnRLTrainer.attach(job.job_name)
    with contextlib.redirect_stdout(io.StringIO()) as streamed_by_job:
        attached.stream_logs(poll=1)
    return {
        "dry": dry,
        "before": before,
        "waited": waited.getvalue(),
        "streamed": streamed.getvalue(),
        "streamed_by_job": streamed_by_job.getvalue(),
        "job": properties(job),
        "attached": properties(attached),
        "output_model_package_arn": made.output_model_package_arn,
        "metrics": job.get_training_metrics(),
        "mlflow_url": job.get_mlflow_url(),
    }


def other_agents() -> dict[str, Any]:
    """Train with an AgentCore runtime and with a function made for it, both at once."""
    function = CustomAgentLambda.create(source=str(HERE / "lambda_function.py"), function_name="made-for-it")
    runtime = trainer(RUNTIME, "agentcore").train(wait=False)
    names = {"mlflow_experiment_name": "an experiment", "mlflow_run_name": "a run"}
    custom = trainer(CustomAgentLambda.get(function.lambda_arn), "custom", **names).train(wait=False)
    with contextlib.redirect_stdout(io.StringIO()) as streamed:
        runtime.stream_logs(poll=1)
    for job in (runtime, custom):
        job.wait(poll=1)
        job.refresh()
    return {
        "function": function.lambda_arn,
        "streamed": streamed.getvalue(),
        "agentcore": properties(runtime),
        "custom": properties(custom),
        "metrics": [job.get_training_metrics() for job in (runtime, custom)],
    }


def failing_agent() -> dict[str, Any]:
    """Train with an agent that has a bug."""
    job = trainer(f"{FUNCTION}:never-samples", "failing").train(wait=False)
    raised = None
    try:
        job.wait(poll=1)
    except FailedStatusError as error:
        raised = str(error)
    job.refresh()
    return {"job": properties(job), "raised": raised}


def stopped() -> dict[str, Any]:
    """Stop a job, and delete it."""
    job = trainer(f"{FUNCTION}:waits", "stopped").train(wait=False)
    while job.secondary_status != "Training":
        time.sleep(0.2)
        job.refresh()
    progress = job.progress_info
    job.stop()
    job.wait(poll=1)
    found = {"progress": progress, "job": properties(job)}
    job.delete()
    job.wait_for_delete()
    try:
        AgentRFTJob.get(job.job_name)
    except ClientError as error:
        found["gone"] = error.response["Error"]["Code"]
    return found


def listed() -> dict[str, list[str]]:
    """The jobs by the filters of `get_all`."""
    now = datetime.now(UTC)
    questions: dict[str, dict[str, Any]] = {
        "all": {"sort_by": "CreationTime", "sort_order": "Ascending"},
        "all, the last first": {"sort_by": "CreationTime", "sort_order": "Descending"},
        "by name": {"sort_by": "Name", "sort_order": "Ascending"},
        "named": {"name_contains": "cust"},
        "failed": {"status_equals": "Failed"},
        "of the last hour": {
            "creation_time_after": now - timedelta(hours=1),
            "sort_by": "Name",
            "sort_order": "Ascending",
        },
        "before": {"creation_time_before": now - timedelta(hours=1)},
        "changed in the last hour": {
            "last_modified_time_after": now - timedelta(hours=1),
            "last_modified_time_before": now + timedelta(hours=1),
            "sort_by": "Name",
            "sort_order": "Ascending",
        },
        "changed before": {"last_modified_time_before": now - timedelta(hours=1)},
    }
    return {
        name: [job.job_name.rpartition("-")[0] for job in AgentRFTJob.get_all(**question)]
        for name, question in questions.items()
    }


def properties(job: AgentRFTJob) -> dict[str, Any]:
    """All that a job says of itself."""
    return {
        "arn": job.job_arn,
        "name": job.job_name,
        "status": job.job_status,
        "secondary_status": job.secondary_status,
        "transitions": [each.status for each in job.secondary_status_transitions],
        "failure_reason": job.failure_reason if isinstance(job.failure_reason, str) else None,
        "times": [time.isoformat() for time in (job.creation_time, job.last_modified_time, job.end_time)],
        "output_model_package_arn": job.output_model_package_arn,
        "mlflow_details": job.mlflow_details,
        "s3_output_path": job.s3_output_path,
        "billable_token_usage": job.billable_token_usage,
        "progress_info": job.progress_info,
        "training_config": job.training_config,
        "agent_config": job.agent_config,
    }


def main(report: str) -> None:
    """Do all of it."""
    upload()
    parts = (lists, lambda_agent, other_agents, failing_agent, stopped, listed)
    Path(report).write_text(json.dumps({part.__name__: part() for part in parts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
