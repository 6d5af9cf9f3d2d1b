"""`CustomAgentLambda.create` of the unmodified SDK from every source, and jobs whose rollouts these functions do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.conftest import Run, ran

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The script, after its end."""
    with ran("sources.py", tmp_path_factory.mktemp("sources"), mlflow=False) as run:
        yield run


@pytest.mark.parametrize("source", ["inline", "file", "s3-file", "s3-zip"])
def test_a_function_of_any_source_does_the_rollouts(source: str, run: Run) -> None:
    job = run.report[source]
    assert (job["status"], job["reason"]) == ("Completed", "")
    rollouts = run.trajectories(job["arn"])
    assert len(rollouts) == 4
    assert all(each["eligible"] and each["turns"] for each in rollouts)
    if source == "inline":
        assert [each["rewards"] for each in rollouts] == [[1.0]] * 4


def test_nothing_but_this_machine_was_looked_up_or_connected_to(run: Run) -> None:
    assert run.left == []
