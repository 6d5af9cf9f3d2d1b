"""A training job: steps of rollouts, each with its policy update, and a validation now and then."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from emulator.job import SecondaryStatus
from emulator.job_config import JobConfig
from emulator.trainer.agents import Agent
from emulator.trainer.jobs.metrics import (
    Metrics,
    advantage_metrics,
    judged_metrics,
    rollout_metrics,
    training_metrics,
)
from emulator.trainer.jobs.run import JobRun
from emulator.trainer.jobs.services import JobFailed
from emulator.trainer.jobs.tokens import StepTokens, step_tokens
from emulator.trainer.rollouts import RolloutResult, Row


@dataclass(frozen=True, slots=True)
class Plan:
    """How a data set becomes steps."""

    train: Sequence[Row]
    validation: Sequence[Row]
    batch_size: int
    steps_per_epoch: int
    max_steps: int

    def batch(self, step: int, seed: str) -> list[Row]:
        """The rows of a step, from 1; each epoch has an order of its own, the same in every attempt at the job."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        order = list(self.train)
        Random(f"{seed} {epoch}").shuffle(order)  # noqa: S311 (nothing secret)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def epoch(self, step: int) -> int:
        """Which epoch a step is of, from 0."""
        return (step - 1) // self.steps_per_epoch


async def train(run: JobRun, config: JobConfig) -> None:
    """Do a training job, from where it is. Raises Stopped, JobFailed, and what its rollouts raise."""
    await run.move(SecondaryStatus.DOWNLOADING, "Downloading input data")
    plan = await _plan(run, config)
    await run.check_outputs(config)
    await run.move(SecondaryStatus.PENDING, "Job waiting for capacity")
    await run.track(config)
    done = run.job.output.get("ProgressInfo", {}).get("CurrentStep", 0)
    await run.update(ProgressInfo=_progress(plan, done))
    await run.say(run.services.policy.note)
    async with run.agent(config) as agent:
        if done == 0:
            await _validate(run, config, plan, agent, 0)
        for step in range(done + 1, plan.max_steps + 1):
            await _step(run, config, plan, agent, step)
    await run.move(SecondaryStatus.UPLOADING, "Uploading the model and the trajectories")
    await promote(run, config)
    await run.end(SecondaryStatus.COMPLETED, "Job completed")


async def _plan(run: JobRun, config: JobConfig) -> Plan:
    """Raises Stopped, JobFailed."""
    rows = await run.read_dataset(config.channels["train"])
    validation = config.channels.get("validation")
    held_out = await run.read_dataset(validation) if validation else []
    parameters = config.hyperparameters
    batch = parameters["global_batch_size"]
    if len(rows) <= batch:
        raise JobFailed(  # OBSERVED: the text
            f"ClientError: Training data has {len(rows)} prompts but global_batch_size is {batch}. "
            "The number of prompts must be greater than the batch size."
        )
    steps_per_epoch = len(rows) // batch
    return Plan(
        rows, held_out, batch, steps_per_epoch, min(parameters["max_steps"], parameters["max_epochs"] * steps_per_epoch)
    )


def _progress(plan: Plan, step: int) -> dict[str, int]:
    return {
        "BatchSize": plan.batch_size,
        "CurrentStep": step,
        "MaxSteps": plan.max_steps,
        "StepsPerEpoch": plan.steps_per_epoch,
    }


async def _step(run: JobRun, config: JobConfig, plan: Plan, agent: Agent, step: int) -> None:
    """One step: rollouts, their advantages, metrics; and what falls due after it."""
    parameters = config.hyperparameters
    message = f"Training in progress, step {step}/{plan.max_steps}"
    await run.move(SecondaryStatus.TRAINING, message)
    began_at = time.monotonic()
    part, group_size = f"train-{step}", parameters["group_size"]
    results = await run.roll_out(part, plan.batch(step, run.job.arn), group_size, agent, config)
    tokens = await _tokens(run, results)
    training_at = time.monotonic()
    metrics: Metrics = {
        **rollout_metrics(results, tokens, group_size=group_size),
        **advantage_metrics(results, method=parameters["advantage_method"]),
        **training_metrics(results, tokens, step=step, epoch=plan.epoch(step), group_size=group_size),
    }
    metrics |= await run.services.policy.update(step, results, config)
    now = time.monotonic()
    metrics |= {"timing_s/training": now - training_at, "timing_s/step": now - began_at}
    if parameters["save_every"] and step % parameters["save_every"] == 0:
        await run.move(SecondaryStatus.TRAINING, f"{message}: CheckpointStart")
        await _package(run, config, config.checkpoint_group_arn, f"checkpoint of step {step}")
        metrics["timing_s/save_checkpoint"] = time.monotonic() - now
        await run.move(SecondaryStatus.TRAINING, f"{message}: CheckpointComplete")
    val_every = parameters["val_every"]
    if step == plan.max_steps or (val_every and step % val_every == 0):
        metrics |= await _validate(run, config, plan, agent, step)
    await _log(run, part, results, metrics, step)
    # Together, so that a step which another server does again is counted once.
    await run.update(BillableTokenUsage=_billable(run, results, tokens), ProgressInfo=_progress(plan, step))


async def _validate(run: JobRun, config: JobConfig, plan: Plan, agent: Agent, step: int) -> Metrics:
    """The validation of a step, if there is data for it. At step 0 its metrics are logged here."""
    if not plan.validation:
        return {}
    parameters = config.hyperparameters
    await run.move(SecondaryStatus.TRAINING, f"Validation at step {step}/{plan.max_steps}")
    began_at = time.monotonic()
    part = f"val-{step}"
    # ASSUMED: a validation does as many rollouts of a prompt as a step does.
    results = await run.roll_out(part, plan.validation, parameters["group_size"], agent, config)
    metrics = judged_metrics(
        "val",
        results,
        await _tokens(run, results),
        group_size=parameters["group_size"],
        threshold=parameters["success_threshold"],
        ks=parameters["pass_k_values"],
    )
    metrics["timing_s/eval"] = time.monotonic() - began_at
    await _log(run, part, results, metrics if step == 0 else {}, step)
    return metrics


async def _tokens(run: JobRun, results: Sequence[RolloutResult]) -> StepTokens:
    valid = [result.trajectory_id for result in results if result.failure is None]
    return await run.services.store.read_patiently(step_tokens, run.job.arn, valid)


async def _log(run: JobRun, part: str, results: Sequence[RolloutResult], metrics: Metrics, step: int) -> None:
    if run.mlflow is not None:
        await run.mlflow.log_rollouts(part, results)
        if metrics:
            await run.mlflow.log_metrics(metrics, step)
    if metrics:
        await run.say(json.dumps({"step": step, **metrics}))


def _billable(run: JobRun, results: Sequence[RolloutResult], tokens: StepTokens) -> dict[str, int]:
    """What would be billed so far: tokens that the model read, wrote, and was trained on."""
    before: dict[str, Any] = run.job.output.get("BillableTokenUsage", {})
    more = {
        "PrefillTokenCount": sum(result.prompt_tokens for result in results),
        "SampleTokenCount": sum(result.response_tokens for result in results),
        "TrainTokenCount": tokens.total,
    }
    return {name: before.get(name, 0) + count for name, count in more.items()}


async def promote(run: JobRun, config: JobConfig) -> None:
    """Make the model package of what the job has come to, if a step was done, and put its trajectories beside it.

    Once: one that a server before this one has made, or that was made before the job was told to stop, is kept.
    """
    output = run.job.output
    if output.get("ProgressInfo", {}).get("CurrentStep", 0) == 0 or "OutputModelPackageArn" in output:
        return
    uri = f"{config.output_path.rstrip('/')}/{run.job.name}/trajectories.jsonl"
    await run.services.cloud.put(uri, await run.services.export(run.job))
    arn = await _package(run, config, config.output_group_arn, "the job's result")
    await run.update(OutputModelPackageArn=arn)


async def _package(run: JobRun, config: JobConfig, group_arn: str | None, what: str) -> str:
    group = group_arn or config.output_group_arn
    assert group is not None, "the schema demands one"
    name = group.rpartition("/")[2]
    model_uri = f"{config.output_path.rstrip('/')}/{name}/{run.job.name}/model"
    note = f"{what} of {run.job.name}. {run.services.policy.note}"
    await run.services.cloud.put(f"{model_uri}/README.txt", f"{note}\nBase model: {config.base_model_arn}\n".encode())
    return await run.services.cloud.create_model_package(group, model_uri=model_uri, config=config, note=note)
