"""What is left of many samples: in memory, and on disk."""

from __future__ import annotations

import http.client
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from bench.contenders import NORMAL, RLLM, SMALL, Contender
from bench.figures.samples import rate
from bench.plan import Scale, Study
from bench.results import Figure, Results
from bench.rig import ContenderFailed, Rig, Visit, say
from bench.templates import JOB_ARN

MANY, SOME = 100_000, 1_000

MEMORY = Figure("memory_after", f"memory after {MANY:,} samples", "MB", "vllm-router")
DISK = Figure("disk", f"bytes on disk of a turn, request {SMALL:,} bytes, answer 1,600", "bytes", "rllm")

#: A rollout resends its conversation each turn. It grows to 8 KB; or by 8 KB a turn, to 320 KB.
TURNS, STEP = 40, 8 * 1024
TO_8K = Figure("rollout_to_8k", f"stored of the requests of {TURNS} turns that grow to 8 KB", "of raw")
BY_8K = Figure("rollout_by_8k", f"stored of the requests of {TURNS} turns that grow by 8 KB each", "of raw")
WRONG = Figure("rollout_wrong", f"of {2 * TURNS} such requests: not read back byte for byte", "")


def _memory(rig: Rig, contenders: Sequence[Contender], results: Results, _scale: Scale) -> None:
    for contender in contenders:
        if contender.slow:
            reached = results.median(rate(32).name, contender.name)
            known = f"{MANY / reached / 60:.0f} minutes at {reached:,.0f} a second" if reached else "it takes too long"
            results.skip([MEMORY], contender.name, known)
            continue
        try:
            with rig.visit(contender) as visit:
                visit.load([contender.sample()], 32, requests=MANY)
                results.add(MEMORY, contender.name, visit.memory() / 1e6)
        except ContenderFailed as error:
            results.fail([MEMORY], contender.name, str(error))
        say(f"{MANY:,} samples: {contender.name}")


def _disk(rig: Rig, contenders: Sequence[Contender], results: Results, _scale: Scale) -> None:
    for contender in contenders:
        if contender not in (NORMAL, RLLM):
            continue
        count = SOME if contender.slow else 10 * SOME
        try:
            with rig.visit(contender) as visit:
                visit.load([contender.sample()], 16, requests=count)
                visit.end()
                files = list(visit.place.folder.glob("*.db*"))
                results.add(DISK, contender.name, sum(file.stat().st_size for file in files) / count)
        except ContenderFailed as error:
            results.fail([DISK], contender.name, str(error))


def conversation(turns: int, step: int) -> list[bytes]:
    """The requests of a rollout whose conversation grows by so many bytes a turn."""
    length = step - len(json.dumps([{"role": role, "content": ""} for role in ("user", "assistant")]))
    messages: list[dict[str, str]] = []
    bodies = []
    for turn in range(turns):
        text = f"Turn {turn}: " + "".join(
            f"{number * 7919 % 10007} " for number in range(turn * 500, turn * 500 + step)
        )
        messages.append({"role": "user", "content": text[: length * 3 // 4]})
        bodies.append(json.dumps({"model": "bench", "messages": messages}).encode())
        messages.append({"role": "assistant", "content": text[: length // 4]})
    return bodies


def _rollouts(rig: Rig, contenders: Sequence[Contender], results: Results, _scale: Scale) -> None:
    if NORMAL not in contenders:
        return
    figures = [TO_8K, BY_8K, WRONG]
    try:
        with rig.visit(NORMAL) as visit:
            wrong = 0
            sent = {"to": conversation(TURNS, STEP // TURNS), "by": conversation(TURNS, STEP)}
            for trajectory, bodies in sent.items():
                _send(visit, trajectory, bodies)
                wrong += sum(_read_back(visit, trajectory, turn) != body for turn, body in enumerate(bodies))
            visit.end()
            for figure, (trajectory, bodies) in zip(figures, sent.items(), strict=False):
                stored = _stored_bytes(visit.place.folder / "bench.db", trajectory)
                results.add(figure, NORMAL.name, stored / sum(map(len, bodies)))
            results.add(WRONG, NORMAL.name, wrong)
    except ContenderFailed as error:
        results.fail(figures, NORMAL.name, str(error))


def _send(visit: Visit, trajectory: str, bodies: Sequence[bytes]) -> None:
    headers = {**visit.contender.headers, "X-Amzn-SageMaker-Trajectory-Id": trajectory}
    with closing(http.client.HTTPConnection("127.0.0.1", visit.place.port, timeout=60)) as connection:
        for body in bodies:
            connection.request("POST", visit.contender.path, body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise ContenderFailed(f"answered {answer.status} to a rollout's turn")


def _read_back(visit: Visit, trajectory: str, turn: int) -> bytes:
    return visit.get(f"/_emulator/turns/{quote(JOB_ARN, safe='')}/{trajectory}/{turn}/request")


def _stored_bytes(database: Path, trajectory: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        (stored,) = connection.execute(
            "SELECT sum(length(request)) FROM turns JOIN trajectories ON trajectories.id = turns.trajectory"
            " WHERE trajectory_id = ?",
            [trajectory],
        ).fetchone()
    assert isinstance(stored, int)
    return stored


STUDIES = [
    Study("memory_after", [MEMORY], _memory),
    Study("disk", [DISK], _disk),
    Study("rollout", [TO_8K, BY_8K, WRONG], _rollouts),
]
FIGURES = [MEMORY, DISK, TO_8K, BY_8K, WRONG]
