"""Hosts that the SDK has built in, and what of the SDK is not about agents.

python elsewhere.py REPORT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import boto3
import mlflow  # type: ignore[import-not-found,unused-ignore]
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.telemetry import telemetry_logging
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, SourceCode
from sagemaker.train.distributed import Torchrun
from sagemaker.train.evaluate import BenchMarkEvaluator, get_benchmarks
from sagemaker.train.rft.feedback import RolloutFeedbackClient

MLFLOW = "arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-local"
JOB = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/by-hand"


def hosts() -> dict[str, Any]:
    """Ask each of the hosts that no variable names, once the variables that there are do not either."""
    for name in ("RFT_RUNTIME_ENDPOINT", "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", "AWS_ENDPOINT_URL"):
        del os.environ[name]
    session = Session()
    rollout = {"JobArn": JOB, "TrajectoryId": "one"}
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    boto3.client("sagemakerjobruntime").sample(**rollout, Body=body)
    RolloutFeedbackClient({"job_arn": JOB, "trajectory_id": "one"}).report_complete(reward=0.5)
    url = telemetry_logging._construct_url("123456789012", "us-west-2", "1", "1", "", "", "")
    telemetry = telemetry_logging._requests_helper(url, 30)
    mlflow.set_tracking_uri(MLFLOW)
    experiment = mlflow.create_experiment("by hand")
    return {
        "account": session.account_id(),
        "caller": session.get_caller_identity_arn(),
        "telemetry": [telemetry.status_code, telemetry.text] if telemetry is not None else None,
        "experiment": mlflow.get_experiment_by_name("by hand").experiment_id == experiment,
    }


def benchmark() -> dict[str, Any]:
    """Evaluate with a benchmark, which SageMaker does in a container. There is no MLflow app: the SDK makes one."""
    control = boto3.client("sagemaker")
    for app in control.list_mlflow_apps()["Summaries"]:
        control.delete_mlflow_app(Arn=app["Arn"])
    made = BenchMarkEvaluator(
        benchmark=get_benchmarks().MMLU,
        model="huggingface-reasoning-qwen3-4b",
        s3_output_path=f"s3://{Session().default_bucket()}/benchmark/",
    )
    execution = made.evaluate()
    raised = None
    try:
        execution.wait(poll=1)
    except FailedStatusError as error:
        raised = str(error)
    execution.refresh()
    reasons = [step.failure_reason for step in execution.status.step_details]
    apps = [app["Name"] for app in control.list_mlflow_apps()["Summaries"]]
    return {"apps": apps, "raised": raised, "status": execution.status.overall_status, "reasons": reasons}


def model_trainer() -> str:
    """Train in a container."""
    code = Path("code")
    code.mkdir()
    (code / "train.py").write_text("print(1)")
    trainer = ModelTrainer(
        training_image="123456789012.dkr.ecr.us-west-2.amazonaws.com/image:1",
        source_code=SourceCode(source_dir=str(code), entry_script="train.py"),
        compute=Compute(instance_type="ml.m5.large", instance_count=1),
        distributed=Torchrun(),
    )
    trainer.train(wait=True)
    status: str = trainer._latest_training_job.training_job_status
    return status


def main(report: str) -> None:
    """Do all of it."""
    parts = (benchmark, model_trainer, hosts)
    Path(report).write_text(json.dumps({part.__name__: part() for part in parts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
