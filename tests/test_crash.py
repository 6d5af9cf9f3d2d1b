"""SIGKILL under load, and a disk that is full: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import json
import random
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path

import pytest

from emulator.store.database import check
from tests.conftest import JOB_ARN
from tests.crashes import DONE, answer_to, chain_of_crashes, echo
from tests.model_servers import model_server
from tests.raw_client import CHAT, STREAM, RawClient
from tests.serving import serving
from tests.stored import stored, stored_turns

KILLS = 50
CHAINS = 2  #: databases that are killed side by side


def test_what_was_acknowledged_survives_50_kills_under_load(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with model_server(echo) as model, ThreadPoolExecutor(CHAINS) as pool:
        chains = [
            pool.submit(
                chain_of_crashes,
                tmp_path / f"{index}.db",
                model.url,
                log=tmp_path / f"{index}.log",
                durability=durability,
                seed=seed + index,
                kills=KILLS // CHAINS,
            )
            for index, durability in enumerate(["full", "normal"])
        ]
        rounds = [life for chain in chains for life in chain.result()]
    assert len(rounds) == KILLS
    told = [each for life in rounds for each in life.told.values()]
    # It was a load, and it was cut off in the middle of everything.
    assert sum(len(each.answered) for each in told) > 20 * KILLS
    assert sum(each.sealed for each in told) > 2 * KILLS
    assert sum(each.rewarded for each in told) > 2 * KILLS
    assert any(len(each.asked) > len(each.answered) for each in told)
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process can be set on Linux only")
def test_a_full_disk_is_an_internal_service_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    big = json.dumps({"stream": False, "padding": "x" * 30_000}).encode()
    big_stream = json.dumps({"stream": True, "padding": "x" * 300_000}).encode()
    with (
        model_server(echo) as model,
        serving(database, model.url, log=tmp_path / "log") as server,
        RawClient(server.url, JOB_ARN) as client,
        RawClient(server.url, JOB_ARN) as other,
    ):
        answered = 0
        for name in ("t", "sealed"):
            assert client.sample(name, big).status == 200
        assert client.complete("sealed").status == 200

        limit_file_size(server.process.pid, 400_000)
        while (reply := client.sample("t", big)).status == 200:
            answered += 1
            assert answered < 100
        assert (reply.status, reply.error) == (500, "InternalServiceError")
        assert "The database could not be written" in reply.message
        for path in (STREAM, CHAT):
            broken = other.begin(path, big_stream, other.sample_headers("t"))
            with pytest.raises(IncompleteRead) as caught:
                broken.read()
            assert DONE not in caught.value.partial
            other.close()
        both = other.begin(STREAM, big_stream.replace(b"xxx", b"break off", 1), other.sample_headers("t"))
        with pytest.raises(IncompleteRead):
            both.read()
        assert client.sample("new", big_stream).status == 500
        assert len(stored_turns(database, "t")) == answered + 1

        limit_file_size(server.process.pid, resource.RLIM_INFINITY)
        assert client.sample("t", big_stream, STREAM).status == 200
        assert client.complete("t").status == 200
        assert client.reward("t", [0.5] * (answered + 2)).status == 200
        assert client.reward("sealed", [1.0]).status == 200
        assert server.process.poll() is None
        assert "Traceback" not in server.log.read_text()
    trajectory, turns = stored(database, "t")
    assert trajectory.turns == len(turns) == answered + 2
    assert [turn.response for turn in turns] == [answer_to(turn.request) for turn in turns]
    assert stored_turns(database, "new") == []
    assert check(database) == []


def limit_file_size(process: int, size: int) -> None:
    """Let a process make no file larger than this: what it meets is what it would meet on a full disk."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
