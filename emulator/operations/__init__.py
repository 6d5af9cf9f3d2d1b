"""What the API does: a module an operation. This table is the runtime's router, and the contract tests' list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from emulator.operations.complete_rollout import complete_rollout
from emulator.operations.openai import list_models, openai_chat_completion, openai_completion
from emulator.operations.runtime import Runtime
from emulator.operations.sample import sample
from emulator.operations.sample_with_response_stream import sample_with_response_stream
from emulator.operations.update_reward import update_reward
from emulator.protocol.answer import Answer, StreamAnswer

__all__ = ["OPENAI_PREFIXES", "OPERATIONS", "Operation", "Runtime"]

# ASSUMED: `/v1/chat/completions` is known; the other paths of an OpenAI-style server are served as well.
#: Where the OpenAI-style paths begin; the SDK's own examples leave `/v1` out.
OPENAI_PREFIXES = ("/v1", "", "/openai/v1")


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table: a function, and where clients find it.

    `model` names the operation of the service model whose members the function takes as keywords; None: it takes none.
    """

    name: str
    function: Callable[..., Awaitable[Answer | StreamAnswer]]
    model: str | None
    paths: tuple[str, ...]
    method: str = "POST"
    openai: bool = False


def _openai_paths(path: str) -> tuple[str, ...]:
    return tuple(prefix + path for prefix in OPENAI_PREFIXES)


OPERATIONS = (
    Operation("Sample", sample, "Sample", ("/sample",)),
    Operation(
        "SampleWithResponseStream",
        sample_with_response_stream,
        "SampleWithResponseStream",
        ("/sample-with-response-stream",),
    ),
    Operation("CompleteRollout", complete_rollout, "CompleteRollout", ("/complete-rollout",)),
    Operation("UpdateReward", update_reward, "UpdateReward", ("/update-reward",)),
    Operation("ChatCompletions", openai_chat_completion, "Sample", _openai_paths("/chat/completions"), openai=True),
    Operation("Completions", openai_completion, "Sample", _openai_paths("/completions"), openai=True),
    Operation("ListModels", list_models, None, _openai_paths("/models"), method="GET", openai=True),
)
