"""Train with a Lambda function made in each of the ways that `CustomAgentLambda.create` knows.

python sources.py REPORT
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.train.custom_agent_lambda import CustomAgentLambda
from sagemaker.train.multi_turn_rl_trainer import MultiTurnRLTrainer

HERE = Path(__file__).parent
CODE = HERE / "lambda_function.py"

#: The SDK first asks whether there is a file of that name, and more than 255 bytes without a slash are an error.
INLINE = """\
import boto3
def handler(e, _):
 m = e["metadata"]
 r = dict(JobArn=m["jobArn"], TrajectoryId=m["rolloutId"])
 c = boto3.client("sagemakerjobruntime")
 c.sample(**r, Body='{"messages":[{"role":"user","content":"6/7?"}]}')
 c.complete_rollout(**r)
 c.update_reward(**r, Rewards=[1])
"""


def packed() -> bytes:
    """A package of two modules, as a build makes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(CODE, "agent/work.py")
        archive.writestr(
            "app.py", "import os\nfrom agent.work import handler\nassert os.environ['OF_ITS_OWN'] == 'x'\n"
        )
    return file.getvalue()


def main(report: str) -> None:
    """Train with all of them at once, and write how each ended."""
    session = Session()
    bucket = session.default_bucket()
    data = session.upload_data(str(HERE.parents[1] / "examples" / "arithmetic.jsonl"), key_prefix="data")
    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key="code/agent.py", Body=CODE.read_bytes())
    s3.put_object(Bucket=bucket, Key="code/agent.zip", Body=packed())
    sources = {
        "inline": CustomAgentLambda.create(source=INLINE, function_name="inline"),
        "file": CustomAgentLambda.create(source=str(CODE), function_name="file"),
        "s3-file": CustomAgentLambda.create(source=f"s3://{bucket}/code/agent.py", function_name="s3-file"),
        "s3-zip": CustomAgentLambda.create(
            source=f"s3://{bucket}/code/agent.zip",
            function_name="s3-zip",
            handler="app.handler",
            timeout=60,
            environment={"OF_ITS_OWN": "x"},
        ),
    }
    jobs = {}
    for name, agent in sources.items():
        trainer = MultiTurnRLTrainer(
            model="huggingface-reasoning-qwen3-4b",
            agent_env=agent,
            training_dataset=data,
            accept_eula=True,
            base_job_name=name,
        )
        trainer.hyperparameters.global_batch_size = 2
        trainer.hyperparameters.group_size = 2
        trainer.hyperparameters.max_steps = 1
        jobs[name] = trainer.train(wait=False)
    found = {}
    for name, job in jobs.items():
        job.wait(poll=1)
        job.refresh()
        found[name] = {
            "arn": job.job_arn,
            "status": job.job_status,
            "reason": job.failure_reason if isinstance(job.failure_reason, str) else None,
        }
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
