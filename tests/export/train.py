"""Trains a step with each of TRL's trainers on exports. Runs where vLLM is, beside torch and TRL.

    python -m tests.export.train FOLDER TOKENIZER

FOLDER holds sft.jsonl, grpo.jsonl, dpo.parquet and tokens.parquet; report.json gets what the trainers made of them.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-not-found,unused-ignore]
from transformers import (  # type: ignore[import-not-found,unused-ignore]
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)
from trl import (  # type: ignore[import-not-found,unused-ignore]
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    SFTConfig,
    SFTTrainer,
)

KINDS = {".jsonl": "json", ".parquet": "parquet"}


def load(path: Path) -> Any:
    """A data set."""
    return datasets.load_dataset(KINDS[path.suffix], data_files=str(path), split="train")


class Steps:
    """A step of each trainer, with a model that is as small as can be."""

    def __init__(self, folder: Path, tokenizer: str) -> None:
        self._folder = folder
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)

    def _model(self) -> Any:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(self._tokenizer), **sizes))

    def _train(self, trainer: Any) -> float:
        loss = trainer.train().training_loss
        assert math.isfinite(loss), loss
        return float(loss)

    def _options(self, batch: int) -> dict[str, Any]:
        options = {"output_dir": str(self._folder / "output"), "max_steps": 1, "per_device_train_batch_size": batch}
        return options | {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no"}

    def sft(self) -> list[str]:
        """Prompt and completion; the texts that its loss was taken on."""
        trainer = SFTTrainer(
            self._model(),
            args=SFTConfig(max_length=None, **self._options(2)),
            train_dataset=load(self._folder / "sft.jsonl"),
            processing_class=self._tokenizer,
        )
        self._train(trainer)
        return [self._tokenizer.decode(self._trained(row)) for row in trainer.train_dataset]

    def tokens(self) -> list[list[int]]:
        """Sequences as they are; the tokens that its loss was taken on, by the batches that the collator makes."""
        data = load(self._folder / "tokens.parquet").rename_column("loss_mask", "assistant_masks")
        trainer = SFTTrainer(
            self._model(),
            args=SFTConfig(max_length=None, **self._options(len(data))),
            train_dataset=data.select_columns(["input_ids", "assistant_masks"]),
            processing_class=self._tokenizer,
        )
        self._train(trainer)
        batch = trainer.data_collator([trainer.train_dataset[at] for at in range(len(data))])
        return [[int(token) for token in row if token != -100] for row in batch["labels"]]

    def dpo(self) -> dict[str, Any]:
        """Pairs; the texts that it compares."""
        trainer = DPOTrainer(
            self._model(),
            ref_model=self._model(),
            args=DPOConfig(max_length=None, **self._options(1)),
            train_dataset=load(self._folder / "dpo.parquet"),
            processing_class=self._tokenizer,
        )
        self._train(trainer)
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        return {name: [self._tokenizer.decode(row[name]) for row in trainer.train_dataset] for name in names}

    def grpo(self) -> list[Any]:
        """Prompts, for which it samples; what its reward function was given."""
        given: list[Any] = []

        def reward(completions: list[Any], instance: list[str], **_: Any) -> list[float]:
            given.extend(json.loads(each) for each in instance)
            return [float(at % 2) for at in range(len(completions))]

        trainer = GRPOTrainer(
            self._model(),
            reward_funcs=reward,
            args=GRPOConfig(num_generations=2, max_completion_length=4, **self._options(2)),
            train_dataset=load(self._folder / "grpo.jsonl"),
            processing_class=self._tokenizer,
        )
        self._train(trainer)
        return given

    def _trained(self, row: Any) -> list[int]:
        return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    steps = Steps(folder, sys.argv[2])
    report = {"sft": steps.sft(), "tokens": steps.tokens(), "dpo": steps.dpo(), "grpo": steps.grpo()}
    (folder / "report.json").write_text(json.dumps(report))
