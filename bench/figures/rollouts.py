"""The ends of rollouts: seal and reward."""

from __future__ import annotations

import json

from bench.contenders import JSON, Contender
from bench.plan import Measure, Scale
from bench.results import Figure, Results
from bench.rig import Visit
from bench.templates import CYCLE, JOB_ARN, http_request

PAIRS = Figure("pairs", "complete and reward, pairs a second, 32 connections", "/s", "normal")

#: Trajectories that are sealed and rewarded, for each second of a load.
TRAJECTORIES_A_SECOND = 3000

_HEADERS = JSON | {"X-Amzn-SageMaker-Job-Arn": JOB_ARN}
_TRAJECTORY = f"sealed-{CYCLE}"


def first_sample(contender: Contender) -> bytes:
    """The sample that creates a trajectory a cycle."""
    headers = dict(contender.headers) | {"X-Amzn-SageMaker-Trajectory-Id": _TRAJECTORY}
    return http_request("POST", contender.path, headers, b'{"model":"bench","messages":[]}')


def complete() -> bytes:
    """What seals the trajectory of a cycle."""
    return _post("/complete-rollout", {"TrajectoryId": _TRAJECTORY, "Status": "ready"})


def reward() -> bytes:
    """What rewards the trajectory of a cycle."""
    return _post("/update-reward", {"TrajectoryId": _TRAJECTORY, "Rewards": [1.0]})


def _post(path: str, document: dict[str, object]) -> bytes:
    return http_request("POST", path, _HEADERS, json.dumps(document).encode())


def only_ours(contender: Contender) -> str | None:
    """Why a peer is left out."""
    return None if contender.is_ours else "it has no such operation"


def _pairs(visit: Visit, results: Results, scale: Scale) -> None:
    count = round(TRAJECTORIES_A_SECOND * scale.seconds)
    first = visit.cycles
    # A few more: at the end a connection may be in the middle of its pair.
    visit.load([first_sample(visit.contender)], 32, requests=count + 32, first_cycle=first)
    load = visit.load([complete(), reward()], 32, requests=2 * count, first_cycle=first)
    results.add(PAIRS, visit.contender.name, load.rate / 2)


MEASURES = [Measure("pairs", [PAIRS], _pairs, leaves_out=only_ours)]
FIGURES = [PAIRS]
