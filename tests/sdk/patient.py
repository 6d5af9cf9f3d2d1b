"""Train in many small steps, and wait: nothing of it knows that the server may be killed meanwhile.

python patient.py REPORT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import boto3
from sagemaker.train.multi_turn_rl_trainer import MultiTurnRLTrainer

DATA = Path(__file__).parents[2] / "examples" / "arithmetic.jsonl"
ACCOUNT = "us-west-2:123456789012"


def main(report: str) -> None:
    """Train, and write how it ended."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket="data", Key="train.jsonl", Body=DATA.read_bytes())
    trainer = MultiTurnRLTrainer(
        model="huggingface-reasoning-qwen3-4b",
        agent_env=f"arn:aws:lambda:{ACCOUNT}:function:arithmetic",
        training_dataset="s3://data/train.jsonl",
        s3_output_path="s3://data/out",
        mlflow_app_arn=f"arn:aws:sagemaker:{ACCOUNT}:mlflow-app/app-local",
        accept_eula=True,
        base_job_name="patient",
    )
    trainer.hyperparameters.global_batch_size = 2
    trainer.hyperparameters.group_size = 4
    trainer.hyperparameters.max_epochs = 10
    trainer.hyperparameters.max_steps = 20
    job = trainer.train(wait=True)
    Path(report).write_text(
        json.dumps(
            {
                "arn": job.job_arn,
                "status": job.job_status,
                "transitions": [each.status for each in job.secondary_status_transitions],
                "progress": job.progress_info,
                "usage": job.billable_token_usage,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
