"""What somebody writes who evaluates agents with SageMaker: nothing of it knows of the emulator.

python evaluate.py REPORT      # what came of it is written there, as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.train.evaluate import MultiTurnRLEvaluator
from sagemaker.train.evaluate.execution import EvaluationPipelineExecution
from sagemaker.train.multi_turn_rl_trainer import MultiTurnRLTrainer

DATA = Path(__file__).parents[2] / "examples" / "arithmetic.jsonl"
MODEL = "huggingface-reasoning-qwen3-4b"
BUCKET = "evaluation-data"
ACCOUNT = "us-west-2:123456789012"
FUNCTION = f"arn:aws:lambda:{ACCOUNT}:function"
MLFLOW = f"arn:aws:sagemaker:{ACCOUNT}:mlflow-app/app-local"


def upload() -> None:
    """The bucket with the data: four prompts."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    rows = DATA.read_text().splitlines()[:4]
    s3.put_object(Bucket=BUCKET, Key="rows.jsonl", Body="\n".join(rows).encode())


def evaluator(model: Any, name: str, **more: Any) -> MultiTurnRLEvaluator:
    """An evaluator of four rollouts a prompt."""
    made = MultiTurnRLEvaluator(
        model=model,
        dataset=f"s3://{BUCKET}/rows.jsonl",
        s3_output_path=f"s3://{BUCKET}/{name}/",
        mlflow_resource_arn=MLFLOW,
        **more,
    )
    made.hyperparameters.eval_group_size = 4
    return made


def base_model() -> dict[str, Any]:
    """Evaluate a model by its id."""
    made = evaluator(MODEL, "base", agent_config=f"{FUNCTION}:arithmetic")
    dry = made.evaluate(dry_run=True)
    before = len(list(MultiTurnRLEvaluator.get_all()))
    execution = made.evaluate()
    execution.wait(poll=1)
    again = EvaluationPipelineExecution.get(execution.arn)
    return {
        "dry": dry,
        "before": before,
        "execution": seen(execution),
        "again": seen(again),
        "kind": type(again).__name__,
        "mlflow_details": execution.get_mlflow_details(),
    }


def comparison() -> dict[str, Any]:
    """Train, evaluate what came of it beside its base, and alone."""
    trainer = MultiTurnRLTrainer(
        model=MODEL,
        agent_env=f"{FUNCTION}:arithmetic",
        training_dataset=f"s3://{BUCKET}/rows.jsonl",
        s3_output_path=f"s3://{BUCKET}/trained",
        mlflow_app_arn=MLFLOW,
        accept_eula=True,
    )
    trainer.hyperparameters.global_batch_size = 2
    trainer.hyperparameters.group_size = 2
    trainer.hyperparameters.max_steps = 1
    trainer.train(wait=False).wait(poll=1)
    execution = evaluator(trainer, "comparison", evaluate_base_model=True).evaluate()
    execution.wait(poll=1)
    package = trainer.output_model_package_arn
    tuned = evaluator(package, "tuned", agent_config=f"{FUNCTION}:arithmetic", evaluate_base_model=False).evaluate()
    tuned.wait(poll=1)
    tuned.refresh()
    return {"package": package, "execution": seen(execution), "tuned": seen(tuned)}


def failing() -> dict[str, Any]:
    """Evaluate with an agent that has a bug."""
    execution = evaluator(MODEL, "failing", agent_config=f"{FUNCTION}:never-samples").evaluate()
    raised = None
    try:
        execution.wait(poll=1)
    except FailedStatusError as error:
        raised = str(error)
    execution.refresh()
    return {"raised": raised, "execution": seen(execution)}


def choices() -> dict[str, Any]:
    """What there is to choose from."""
    return {
        "models": MultiTurnRLEvaluator.list_supported_models(),
        "runtimes": MultiTurnRLEvaluator.list_bedrock_agentcore_runtimes(),
    }


def listed() -> list[str]:
    """All executions."""
    return sorted(execution.arn for execution in MultiTurnRLEvaluator.get_all())


def seen(execution: EvaluationPipelineExecution) -> dict[str, Any]:
    """All that an execution says of itself."""
    return {
        "arn": execution.arn,
        "status": execution.status.overall_status,
        "failure_reason": execution.status.failure_reason,
        "steps": {
            step.name: {"status": step.status, "job": step.job_arn, "reason": step.failure_reason}
            for step in execution.status.step_details
        },
    }


def main(report: str) -> None:
    """Do all of it."""
    upload()
    parts = (base_model, comparison, failing, choices, listed)
    Path(report).write_text(json.dumps({part.__name__: part() for part in parts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
