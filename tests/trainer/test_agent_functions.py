"""Agents that are functions: in this process, and as Lambda functions in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from emulator.commands.serve import allow_open_files
from emulator.trainer.agents import AgentContext, AgentFailed, agent_environment, find_agent
from emulator.trainer.agents.lambda_process import MOST_OUTPUT, Function, Worker
from emulator.trainer.agents.lambda_workers import MAX_WORKERS, LambdaWorkers
from emulator.trainer.rollouts import FailureText
from tests.stored import eventually
from tests.trainer import agents
from tests.trainer.playing import alone, played

FILE = agents.__file__


@pytest.mark.parametrize("name", ["act", "act_asynchronously"])
def test_functions_are_called_side_by_side(name: str) -> None:
    results = played(f"python:tests.trainer.agents:{name}", [{}] * 10)
    assert [result.reward for result, _ in results] == [1.0] * 10


def test_an_asynchronous_function_that_raises_has_failed() -> None:
    ((result, _),) = played("python:tests.trainer.agents:act_asynchronously", [{"do": "raise"}])
    assert result.failure is not None
    assert result.failure.reason == "the agent raised ValueError: broken in two lines"


def test_an_asynchronous_function_that_exits_has_failed_and_ends_nothing_else() -> None:
    results = played("python:tests.trainer.agents:end_the_program", [{"do": "exit"}, {}, {"do": "exit"}, {}])
    assert [result.reward for result, _ in results] == [None, 1.0, None, 1.0]
    for result, _ in results[::2]:
        assert result.failure is not None
        assert result.failure.reason == "the agent raised SystemExit: 3"


def test_a_module_that_exits_when_it_is_imported_is_no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_program.py").write_text("raise SystemExit('usage: something else')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(AgentFailed, match="a_program:run cannot be imported: SystemExit: usage: something else"):
        alone(find_agent("python:a_program:run").start(20))


def test_a_request_is_the_functions_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greedy.py").write_text(
        "from tests.trainer.agents import act\ndef run(request):\n    act(request)\n    request['instance'].clear()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    results = played("python:greedy:run", [{"rewards": [0.5]}], group_size=3)
    assert [result.reward for result, _ in results] == [0.5] * 3


def test_a_row_may_be_nested_as_deeply_as_json_goes() -> None:
    ((result, _),) = played("python:tests.trainer.agents:act", [{"deep": json.loads("[" * 600 + "]" * 600)}])
    assert result.reward == 1.0


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("python:absent_module:run", "cannot be imported: ModuleNotFoundError: No module named 'absent_module'"),
        ("python:tests.trainer.agents:absent", "cannot be imported: AttributeError"),
        ("python:tests.trainer.agents:FOREVER", "is no function"),
        ("lambda:absent_module:run", "the agent raised Runtime.ImportModuleError: .*No module named .absent_module"),
        (f"lambda:{FILE}:absent", "the agent raised Runtime.HandlerNotFound: Handler .absent. missing"),
    ],
)
def test_a_function_that_is_not_there_is_known_before_the_first_rollout(target: str, problem: str) -> None:
    async def work() -> None:
        agent = find_agent(target, AgentContext(show=lambda line: None))
        try:
            await agent.start(20)
        finally:
            await agent.aclose()

    with pytest.raises(AgentFailed, match=problem):
        alone(work())


@pytest.mark.parametrize("target", [f"lambda:{FILE}", f"lambda:{FILE}:lambda_handler", "lambda:tests.trainer.agents:lambda_handler"])  # fmt: skip # noqa: E501
def test_a_lambda_function_does_rollouts_in_its_own_process_and_what_it_prints_is_shown(target: str) -> None:
    shown: list[str] = []
    results = played(target, [{}] * 4, context=AgentContext({}, 30.0, shown.append))
    assert [result.reward for result, _ in results] == [1.0] * 4
    name = "agents" if FILE in target else "tests.trainer.agents"
    assert sorted(shown) == sorted(f"[{name}] rollout {result.trajectory_id} of {name}" for result, _ in results)


def test_a_lambda_function_may_have_somebody_else_do_the_work() -> None:
    ((result, _),) = played(f"lambda:{FILE}:act_later", [{}])
    assert result.reward == 1.0


@pytest.mark.parametrize(
    ("do", "text", "reason"),
    [
        ("raise", FailureText.NO_SAMPLES, "the agent raised ValueError: broken in two lines"),
        ("refuse", FailureText.NO_SAMPLES, "the agent refused: Throttling: too many"),
        ("exit", FailureText.NO_SAMPLES, "the Lambda function's process ended with status 7"),
        ("hang", FailureText.NO_SAMPLES, "the Lambda function timed out after 0.5 s"),
        ("return", FailureText.NO_SAMPLES, "not done within 2 s; the agent had answered"),
        ("fail", FailureText.AGENT_FAILED, "CompleteRollout(failed) after 2 turns"),
    ],
)
def test_a_lambda_function_that_fails_leaves_the_others_in_peace(do: str, text: FailureText, reason: str) -> None:
    context = AgentContext({}, 0.5 if do == "hang" else 20.0, lambda line: None)
    results = played(f"lambda:{FILE}", [{"do": do}, {}, {"do": do}, {}], context=context, timeout=2.0)
    for result, _ in results[::2]:
        assert result.failure is not None
        assert (result.failure.text, result.failure.reason) == (text, reason)
    assert [result.reward for result, _ in results[1::2]] == [1.0, 1.0]


def test_an_answer_that_is_no_json_is_an_error_of_the_function() -> None:
    ((result, _),) = played(f"lambda:{FILE}:answer_with_what_is_no_json", [{}], context=AgentContext(show=lambda _: None))  # fmt: skip # noqa: E501
    assert result.failure is not None
    assert "Object of type set is not JSON serializable" in result.failure.reason


def test_a_lambda_function_that_says_too_much_has_failed_and_serves_on() -> None:
    rows = [{"do": "much"}, {}, {"do": "raise much"}, {}]
    context = AgentContext(show=lambda _: None)
    results = played(f"lambda:{FILE}:answer_at_length", rows, context=context, concurrency=1)
    assert [result.reward for result, _ in results] == [None, 1.0, None, 1.0]
    reasons = [result.failure.reason for result, _ in results if result.failure is not None]
    assert reasons[0].startswith("the agent raised Function.ResponseSizeTooLarge: Response payload size exceeded")
    assert reasons[1].startswith("the agent raised ValueError: xxx")


@pytest.mark.parametrize("session", [False, True], ids=["of its group", "of its own"])
def test_a_process_that_a_lambda_function_has_started_holds_nobody_up_and_ends_with_it(session: bool) -> None:
    shown: list[str] = []
    ((result, _),) = played(
        f"lambda:{FILE}:leave_somebody_behind", [{"session": session}], context=AgentContext(show=shown.append)
    )
    assert result.reward == 1.0
    started = int(shown[0].removeprefix("[agents] "))
    eventually(lambda: not psutil.pid_exists(started), "its end")


def test_lambda_functions_run_side_by_side_each_in_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(
        "import os, time\n"
        "from tests.trainer.agents import act\n"
        "busy = False\n"
        "def handler(event, context):\n"
        "    global busy\n"
        "    assert not busy\n"
        "    busy = True\n"
        "    print(os.getpid())\n"
        "    act(event)\n"
        "    busy = False\n"
    )
    shown: list[str] = []
    context = AgentContext({"PYTHONPATH": str(Path.cwd())}, 30.0, shown.append)
    results = played(f"lambda:{tmp_path}/alone.py", [{}] * 30, context=context)
    assert [result.reward for result, _ in results] == [1.0] * 30
    workers = {int(line.removeprefix("[alone] ")) for line in shown}
    assert 1 < len(workers) <= min(MAX_WORKERS, 8)  # 8 are dispatched at once
    assert not any(psutil.pid_exists(worker) for worker in workers)


def test_an_agent_finds_the_runtime_in_its_environment_and_keeps_its_own_credentials() -> None:
    found = agent_environment("http://127.0.0.1:1", "us-west-2", {"AWS_ACCESS_KEY_ID": "mine"})
    assert found["AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME"] == "http://127.0.0.1:1"
    assert found["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"
    assert "AWS_ACCESS_KEY_ID" not in found
    assert found["AWS_SECRET_ACCESS_KEY"] == "local"


def test_a_lambda_function_gets_the_environment_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text("import os\ndef handler(event, context):\n    print(os.environ['ASKED'])\n")
    shown: list[str] = []

    async def work() -> None:
        agent = find_agent(f"lambda:{tmp_path}/asks.py", AgentContext({"ASKED": "answer"}, 20.0, shown.append))
        await agent.start(20)
        await agent.roll_out({}, "t")
        await agent.aclose()

    alone(work())
    assert shown == ["[asks] answer"]
    assert "ASKED" not in os.environ


def test_who_is_cancelled_while_a_lambda_function_runs_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time\ndef handler(event, context):\n    print(os.getpid())\n    time.sleep(60)\n"
    )
    shown: list[str] = []

    async def work() -> None:
        came = asyncio.Event()

        def show(line: str) -> None:
            shown.append(line)
            came.set()

        agent = find_agent(f"lambda:{tmp_path}/slow.py", AgentContext({}, 60.0, show))
        await agent.start(20)
        running = asyncio.create_task(agent.roll_out({}, "t"))
        await asyncio.wait_for(came.wait(), 20)
        running.cancel()
        await asyncio.wait((running,))
        assert not psutil.pid_exists(int(shown[0].removeprefix("[slow] ")))
        await agent.aclose()

    alone(work())


@pytest.mark.skipif(sys.platform != "linux", reason="counts the open files that /proc lists")
@pytest.mark.parametrize("step", ["open_unix_connection", "create_subprocess_exec"])
def test_who_is_cancelled_while_a_lambda_function_starts_leaves_no_file_open(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = Function("f", "arn", str(tmp_path), "none", "handler", dict(os.environ), 20.0)
    go = getattr(asyncio, step)

    async def work() -> None:
        starting = asyncio.create_task(Worker.start(function, None))

        async def cancelled(*given: Any, **named: Any) -> Any:
            starting.cancel()
            return await go(*given, **named)

        monkeypatch.setattr(asyncio, step, cancelled)
        await asyncio.wait((starting,))
        assert starting.cancelled()

    alone(work())  # what loops and imports leave open for good
    before = len(list(Path("/proc/self/fd").iterdir()))
    alone(work())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_nothing_that_a_lambda_function_has_started_outlives_whoever_was_killed(tmp_path: Path) -> None:
    (tmp_path / "spreading.py").write_text(
        dedent("""
            import os, subprocess
            def handler(event, context):
                sleep = ["sleep", "600"]
                pids = [os.getpid(), subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
                print(*pids)
                while True:
                    pass
        """)
    )
    script = dedent(f"""
        import asyncio
        from functools import partial
        from emulator.trainer.agents import AgentContext, find_agent

        async def work():
            agent = find_agent("lambda:{tmp_path}/spreading.py", AgentContext(show=partial(print, flush=True)))
            await agent.start(20)
            await agent.roll_out({{}}, "t")

        asyncio.run(work())
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        started = [int(pid) for pid in owner.stdout.readline().split()[1:]]
        guard = psutil.Process(started[0]).ppid()
        owner.kill()
    assert len(started) == 3
    for pid in (*started, guard):
        eventually(lambda pid=pid: not psutil.pid_exists(pid), "its end")  # type: ignore[misc]


def test_a_lambda_function_lives_on_where_its_server_has_more_than_1024_open_files(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ndef handler(event, context):\n    time.sleep(0.3)\n    return event\n"
    )

    async def work() -> None:
        workers = LambdaWorkers(Function("f", "arn", str(tmp_path), "slow", "handler", dict(os.environ), 20.0))
        invocation = await workers.invoke({"n": 1})
        await workers.aclose()
        assert (invocation.problem, invocation.answer) == (None, {"n": 1})

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_open_files(2048)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        alone(work())
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_lambda_worker_that_was_killed_while_idle_fails_no_invocation(tmp_path: Path) -> None:
    (tmp_path / "who.py").write_text("import os\ndef handler(event, context):\n    return os.getpid()\n")

    async def work() -> None:
        workers = LambdaWorkers(Function("f", "arn", str(tmp_path), "who", "handler", dict(os.environ), 20.0))
        pid = (await workers.invoke({})).answer
        (worker,) = workers._workers
        os.kill(pid, signal.SIGKILL)
        await worker.process.wait()
        invocation = await workers.invoke({})
        assert (invocation.problem, invocation.answer == pid) == (None, False)
        await workers.aclose()

    alone(work())


def test_what_a_fork_of_a_lambda_function_returns_is_nobody_s_answer(tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(
        dedent("""
            import os
            def handler(event, context):
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                return {"n": event["n"], "child": not child}
        """)
    )

    async def work() -> None:
        workers = LambdaWorkers(Function("f", "arn", str(tmp_path), "forking", "handler", dict(os.environ), 20.0))
        for n in range(3):
            assert (await workers.invoke({"n": n})).answer == {"n": n, "child": False}
        await workers.aclose()

    alone(work())


def test_a_lambda_function_that_never_stops_printing_takes_no_more_memory_than_it_may(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "def handler(event, context):\n    for _ in range(event):\n        print('x' * 999)\n"
    )

    async def work() -> None:
        workers = LambdaWorkers(Function("f", "arn", str(tmp_path), "loud", "handler", dict(os.environ), 60.0))
        most = MOST_OUTPUT // 1000
        loud, quiet = await workers.invoke(most + 5), await workers.invoke(2)
        await workers.aclose()
        assert len(loud.lines) == most + 1
        assert loud.lines[-1] == "(the emulator has dropped 5 more lines)"
        assert quiet.lines == ["x" * 999] * 2

    alone(work())
