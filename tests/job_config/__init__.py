"""Documents as the SDK sends them."""

from __future__ import annotations

from typing import Any

MLFLOW = "arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-1"
GROUP = "arn:aws:sagemaker:us-west-2:123456789012:model-package-group/{}"
MODEL = "arn:aws:sagemaker:us-west-2:aws:hub-content/SageMakerPublicHub/Model/qwen/1.0.0"


def channel(name: str, uri: str) -> dict[str, Any]:
    """One of InputDataConfig."""
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}


TRAINING: dict[str, Any] = {
    "AgentConfig": {
        "CustomAgentLambdaConfig": {"LambdaArn": "arn:aws:lambda:us-west-2:123456789012:function:agent"},
    },
    "InputDataConfig": [channel("train", "s3://bucket/train.jsonl"), channel("validation", "s3://bucket/val/")],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ModelPackageConfig": {
        "OutputModelPackageGroupArn": GROUP.format("out"),
        "IntermediateCheckpointModelPackageGroupArn": GROUP.format("checkpoints"),
    },
    "TrainingConfig": {
        "BaseModelArn": MODEL,
        "AcceptEula": True,
        "MlflowConfig": {"MlflowResourceArn": MLFLOW, "MlflowExperimentName": "e"},
        "HyperParameters": {"max_steps": "6"},
    },
}

EVALUATION: dict[str, Any] = {
    "AgentConfig": {
        "BedrockAgentCoreConfig": {
            "AgentRuntimeArn": "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/agent-0123456789",
            "Qualifier": "DEFAULT",
        },
    },
    "InputDataConfig": [channel("evaluation", "s3://bucket/eval.jsonl")],
    "OutputDataConfig": {
        "S3OutputPath": "s3://bucket/out",
        "MlflowConfig": {"MlflowResourceArn": MLFLOW, "MlflowRunName": "base-model-eval"},
    },
    "EvaluationConfig": {
        "BaseModelArn": MODEL,
        "AcceptEula": True,
        "HyperParameters": {
            "eval_group_size": "2",
            "sampling_temperature": "0.5",
            "top_p": "0.9",
            "max_tokens": "64",
            "pass_k_values": "[1, 2]",
        },
    },
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
}
