"""`smollm2.yaml` is a cassette of three examples with the real vLLM: they do the same again, wherever the tests run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.inference.cassette.file import read_cassette
from tests.examples.agents import SERVERS
from tests.examples.driving import drive
from tests.examples.recomputing import recomputed

CASSETTE = Path(__file__).with_name("smollm2.yaml")
ROWS, GROUP_SIZE = 4, 4

#: As it was recorded.
OPTIONS = (
    "--limit", str(ROWS), "--group-size", str(GROUP_SIZE), "--temperature", "0.5", "--max-tokens", "64",
    "--rate", "none", "--retries", "0", "--model", f"cassette:{CASSETTE}", "--cassette-used-up", "refuse",
)  # fmt: skip


def test_three_examples_do_again_what_they_did_with_the_real_model(
    example: Callable[[str], str], tmp_path: Path
) -> None:
    heard: Counter[bytes] = Counter()
    for name in ("boto3_streaming", "openai_tools", "langchain_agent"):
        database = tmp_path / f"{name}.db"
        run = drive(name, example(name) if name in SERVERS else None, database, *OPTIONS, "--database", str(database))
        assert run.report["metrics"] == pytest.approx(recomputed(run, rows=ROWS, group_size=GROUP_SIZE), abs=1e-12)
        assert 0 < run.report["metrics"]["reward/mean"] < 1
        heard += Counter(turn.response for _, turns in run.stored.values() for turn in turns)
    assert heard == Counter(entry.recorded.answer.body for entry in read_cassette(CASSETTE).entries)
