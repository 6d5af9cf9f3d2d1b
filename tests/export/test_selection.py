"""Which trajectories are exported, by the command and by the server alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.export import rollouts
from tests.conftest import JOB_ARN
from tests.export.conftest import Captured
from tests.export.rollouts import OTHER_JOB
from tests.managed import assert_error

ALL = ["whole", "streamed", "without-ids", "given-up", "unrewarded", "never-sampled", "interleaved", "text", "whole"]


def both(captured: Captured, folder: Path, **given: str) -> list[str]:
    """The trajectories of an export that the command wrote, which the server must write too, byte for byte."""
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    options = [part for part in options if part != "true"]
    written = captured.write(folder / "out.jsonl", *options).read_bytes()
    answer = captured.get(**given)
    assert answer.content == written
    return [json.loads(line)["trajectory_id"] for line in written.splitlines()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"job": OTHER_JOB}, ["whole"]),
        ({"status": "ready"}, ["unrewarded"]),
        ({"eligible": "true"}, ["whole", "streamed", "without-ids", "interleaved", "text", "whole"]),
        ({"trajectory": "whole"}, ["whole", "whole"]),
        ({"trajectory": "whole", "job": JOB_ARN}, ["whole"]),
        ({"group": "group-2"}, ["without-ids", "given-up", "never-sampled"]),
        ({"min_reward": "0.5", "max_reward": "1"}, ["whole", "without-ids", "text", "whole"]),
        ({"max_reward": "0"}, ["streamed", "given-up"]),
        ({"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}, []),
        ({"format": "openai", "group": "group-2"}, ["without-ids"]),
        ({"format": "openai", "group": "group-2", "failed": "true"}, ["without-ids", "given-up"]),
    ],
)
def test_filters(captured: Captured, tmp_path: Path, given: dict[str, str], expected: list[str]) -> None:
    if "format" in given or given.get("job") != OTHER_JOB:
        assert both(captured, tmp_path, **given) == expected
    else:
        assert expected[0] in both(captured, tmp_path, **given)


def test_everything_is_exported_oldest_first_when_nothing_is_said(captured: Captured, tmp_path: Path) -> None:
    assert both(captured, tmp_path, job=JOB_ARN) == ALL[:-1]


def test_groups_that_go_on_over_many_pages_are_whole(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [{"format": "tokens"}, *({"format": "trl", "for": each, "failed": "true"} for each in ("grpo", "dpo"))]
    expected = [captured.get(**given).content for given in options]
    monkeypatch.setattr(rollouts, "PAGE", 1)
    assert [captured.get(**given).content for given in options] == expected


def test_what_the_server_does_not_know_is_refused(captured: Captured) -> None:
    for given, problem in (
        ({"format": "parquet"}, "native, openai, trl, tokens"),
        ({"format": "trl"}, "sft, grpo, dpo"),
        ({"file": "csv"}, "jsonl, parquet"),
        ({"advantage": "gpg"}, "group_based"),
        ({"min_reward": "nan"}, "finite"),
        ({"eligible": "yes"}, "true nor false"),
        ({"limit": "5"}, "no parameter"),
    ):
        assert problem in assert_error(captured.get(**given), 400, "ValidationException")
