"""What was captured, in the shapes that others read: one definition a format, for the command and for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from emulator.advantages import OF_ONE_GROUP
from emulator.export import native, openai, tokens, trl
from emulator.export.rollouts import Companions, Rollout, Selection, Tally, select_rollouts
from emulator.export.shape import Shape
from emulator.export.tokenizing import Ask, Tokenizer
from emulator.export.writing import NoParquet, json_lines, parquet, require_parquet
from emulator.store.queries import TrajectoryFilter
from emulator.trajectory import Status

__all__ = [
    "ADVANTAGES", "FILES", "FORMATS", "PURPOSES", "SCHEMAS",
    "Ask", "InvalidExport", "NoParquet", "Plan", "Selection", "Tally", "Tokenizer", "export",
]  # fmt: skip

FORMATS = ("native", "openai", "trl", "tokens")

#: What a TRL data set is for.
PURPOSES = ("sft", "grpo", "dpo")

FILES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}

#: The methods whose advantages an export can say: the others look at a training step's whole batch.
ADVANTAGES = OF_ONE_GROUP

#: Every schema by name and version, what its rows are, and their shape.
SCHEMAS: dict[str, tuple[str, Shape]] = {
    native.SCHEMA: ("Everything that was captured of a trajectory: a row each.", native.SHAPE),
    openai.SCHEMA: ("A conversation of a trajectory, in the shape of fine-tuning.", openai.SHAPE),
    trl.SFT: ("A turn, for TRL's SFTTrainer: prompt and completion.", trl.SFT_SHAPE),
    trl.GRPO: ("A prompt, for TRL's GRPOTrainer.", trl.GRPO_SHAPE),
    trl.DPO: ("A group's best and worst rollout, for TRL's DPOTrainer.", trl.DPO_SHAPE),
    tokens.SCHEMA: ("Turns that extend one another, in tokens.", tokens.SHAPE),
}


class InvalidExport(Exception):
    """There is no such export; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is exported, and as what."""

    which: TrajectoryFilter
    failed: bool = False  #: also those that their agent gave up
    least_reward: float | None = None
    most_reward: float | None = None
    format: str = "native"
    purpose: str | None = None  #: of the format `trl`
    file: str = "jsonl"
    advantage: str = "group_based"

    def check(self) -> None:
        """Raises InvalidExport, NoParquet."""
        choices = (
            ("format", self.format, FORMATS),
            ("for", self.purpose if self.format == "trl" else PURPOSES[0], PURPOSES),
            ("file", self.file, tuple(FILES)),
            ("advantage", self.advantage, ADVANTAGES),
        )
        for name, value, known in choices:
            if value is None:
                raise InvalidExport(f"{name}: says what the data set is for: {', '.join(known)}")
            if value not in known:
                raise InvalidExport(f"{name}: {value!r} is none of {', '.join(known)}")
        if self.file == "parquet":
            require_parquet()

    @property
    def schema(self) -> str:
        """The name and version of its rows' schema."""
        return {
            "native": native.SCHEMA,
            "openai": openai.SCHEMA,
            "tokens": tokens.SCHEMA,
            "trl": {"sft": trl.SFT, "grpo": trl.GRPO, "dpo": trl.DPO}[self.purpose or "sft"],
        }[self.format]

    @property
    def selection(self) -> Selection:
        """Which trajectories are exported. `native` has everything; the others leave out what nobody may train on."""
        failed = self.failed or self.format == "native" or self.which.status is Status.FAILED
        return Selection(replace(self.which, unfailed=not failed), self.least_reward, self.most_reward)


def export(connection: Connection, plan: Plan, tally: Tally, tokenizer: Tokenizer | None = None) -> Iterator[bytes]:
    """The file, piece by piece; in memory is one trajectory, or the row group that is being filled.

    Raises DatabaseError, and what the connection's driver raises.
    """
    rows = _rows(connection, plan, tally, tokenizer)
    return json_lines(rows) if plan.file == "jsonl" else parquet(rows, SCHEMAS[plan.schema][1], plan.schema)


def _rows(connection: Connection, plan: Plan, tally: Tally, tokenizer: Tokenizer | None) -> Iterator[dict[str, Any]]:
    make: dict[str, tuple[Callable[[Rollout], Iterator[dict[str, Any]]], Companions]] = {
        native.SCHEMA: (native.rows, "none"),
        openai.SCHEMA: (openai.rows, "none"),
        trl.SFT: (trl.sft_rows, "none"),
        trl.GRPO: (trl.grpo_rows, "selected"),
        trl.DPO: (trl.dpo_rows, "selected"),
        tokens.SCHEMA: (tokens.TokenRows(plan.advantage, tokenizer), "eligible"),
    }
    rows_of, companions = make[plan.schema]
    for rollout in select_rollouts(connection, plan.selection, companions, tally):
        for row in rows_of(rollout):
            tally.rows += 1
            yield row
