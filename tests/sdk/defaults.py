"""The shortest script that trains: all that can be left out is left out.

python defaults.py REPORT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sagemaker.core.helper.session_helper import Session
from sagemaker.train.custom_agent_lambda import CustomAgentLambda
from sagemaker.train.multi_turn_rl_trainer import MultiTurnRLTrainer

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "examples" / "arithmetic.jsonl"


def main(report: str) -> None:
    """Train, and write how it ended."""
    session = Session()
    data = session.upload_data(str(DATA), key_prefix="data")
    trainer = MultiTurnRLTrainer(
        model="huggingface-reasoning-qwen3-4b",
        agent_env=CustomAgentLambda.create(source=str(HERE / "lambda_function.py")),
        training_dataset=data,
        accept_eula=True,
    )
    trainer.hyperparameters.global_batch_size = 2
    trainer.hyperparameters.group_size = 2
    trainer.hyperparameters.max_steps = 2
    job = trainer.train()
    document = {
        "account": session.account_id(),
        "caller": session.get_caller_identity_arn(),
        "data": data,
        "status": job.job_status,
        "output": job.s3_output_path,
        "progress": job.progress_info,
        "usage": job.billable_token_usage,
        "mlflow": (job.training_config or {}).get("MlflowConfig"),
    }
    Path(report).write_text(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
