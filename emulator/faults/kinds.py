"""The kinds of faults: what each can be told, and which operations it fits. docs/faults.md says what each does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Our operations that can suffer faults, each with the one of the service model that it is a door to.
SERVICE_OPERATIONS = {
    "Sample": "Sample",
    "SampleWithResponseStream": "SampleWithResponseStream",
    "CompleteRollout": "CompleteRollout",
    "UpdateReward": "UpdateReward",
    "ChatCompletions": "Sample",
    "Completions": "Sample",
}
ALL = tuple(SERVICE_OPERATIONS)
SAMPLING = ("Sample", "SampleWithResponseStream", "ChatCompletions", "Completions")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    options: Mapping[str, Any] = field(default_factory=dict)  #: of its own, each with what it is where it is not given
    error: str | None = None  #: the error that it raises, where it is always the same
    needs: tuple[str, ...] = ()  #: options that have to be given
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    operations: tuple[str, ...] = ALL
    of_model: bool = False  #: whether the model server suffers it; else the service does
    adds: bool = False  #: whether it comes on top of others; of all others, a call suffers one


_WHERE = {"after_events": None, "after_bytes": None}

KINDS: Mapping[str, Kind] = {
    # The service's: before the operation, after it, or on the connection.
    "error": Kind(
        {"error": None, "message": None, "retry_after": None, "when": "before"},
        needs=("error",),
        choices={"when": ("before", "after")},
    ),
    "rate-limit": Kind({"retry_after": 1, "message": None}, error="ThrottlingException"),
    "quota": Kind({"message": None}, error="ServiceQuotaExceededException"),
    "expired-credentials": Kind({"message": None}, error="AccessDeniedException"),
    "latency": Kind(
        {"seconds": None, "when": "before"}, needs=("seconds",), choices={"when": ("before", "after")}, adds=True
    ),
    "drop": Kind({"when": "before", **_WHERE}, choices={"when": ("before", "during", "after")}),
    # The model server's: capture takes them for real.
    "model-down": Kind(operations=SAMPLING, of_model=True),
    "model-timeout": Kind({"seconds": 0}, operations=SAMPLING, of_model=True),
    "model-error": Kind({"status": 503, "message": None, "retry_after": None}, operations=SAMPLING, of_model=True),
    "context-overflow": Kind({"message": None}, operations=SAMPLING, of_model=True),
    "cut": Kind(_WHERE, operations=SAMPLING, of_model=True),
    "truncate": Kind(_WHERE, operations=SAMPLING, of_model=True),
    "stall": Kind({"seconds": None, **_WHERE}, operations=SAMPLING, of_model=True),
    "corrupt": Kind({"how": "json", **_WHERE}, choices={"how": ("json", "bytes")}, operations=SAMPLING, of_model=True),
    "slow": Kind({"seconds": 0, "first": 0}, operations=SAMPLING, of_model=True, adds=True),
    "tool-call": Kind(
        {"how": "arguments"},
        choices={"how": ("arguments", "name")},
        operations=("Sample", "SampleWithResponseStream", "ChatCompletions"),
        of_model=True,
    ),
}
