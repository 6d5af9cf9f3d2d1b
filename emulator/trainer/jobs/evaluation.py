"""An evaluation job: all prompts once over, and `eval-results.json`."""

from __future__ import annotations

import json
import time

from emulator.job import SecondaryStatus
from emulator.job_config import JobConfig
from emulator.trainer.jobs.metrics import judged_metrics
from emulator.trainer.jobs.run import JobRun
from emulator.trainer.jobs.tokens import step_tokens

PART = "eval-0"


async def evaluate(run: JobRun, config: JobConfig) -> None:
    """Do an evaluation job, from where it is. Raises Stopped, JobFailed, and what its rollouts raise."""
    await run.move(SecondaryStatus.DOWNLOADING, "Downloading input data")
    rows = await run.read_dataset(config.channels["evaluation"])
    await run.check_outputs(config)
    await run.move(SecondaryStatus.PENDING, "Job waiting for capacity")
    mlflow = await run.track(config)
    await run.move(SecondaryStatus.EVALUATING, "Evaluation in progress")
    parameters = config.hyperparameters
    group_size = parameters["eval_group_size"]
    began_at = time.monotonic()
    async with run.agent(config) as agent:
        results = await run.roll_out(PART, rows, group_size, agent, config)
    valid = [result.trajectory_id for result in results if result.failure is None]
    metrics = judged_metrics(
        "eval",
        results,
        await run.services.store.read_patiently(step_tokens, run.job.arn, valid),
        group_size=group_size,
        threshold=parameters["success_threshold"],
        ks=parameters["pass_k_values"],
    )
    await run.update(
        BillableTokenUsage={
            "PrefillTokenCount": sum(result.prompt_tokens for result in results),
            "SampleTokenCount": sum(result.response_tokens for result in results),
        }
    )
    await run.move(SecondaryStatus.UPLOADING, "Uploading the results")
    folder = config.output_path.rstrip("/")
    # The SDK gives both jobs of a comparison one output path: the first is the last's to end, the second its own.
    for path in (f"{folder}/eval-results.json", f"{folder}/{run.job.name}/eval-results.json"):
        await run.services.cloud.put(path, json.dumps(metrics, indent=2).encode())
    await run.services.cloud.put(f"{folder}/{run.job.name}/trajectories.jsonl", await run.services.export(run.job))
    await mlflow.log_rollouts(PART, results)
    await mlflow.log_metrics({**metrics, "timing_s/eval": time.monotonic() - began_at}, 0)
    await run.say(json.dumps(metrics))
    await run.end(SecondaryStatus.COMPLETED, "Job completed")
