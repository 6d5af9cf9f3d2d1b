"""An agent that is a function in this process: plain ones in threads, asynchronous ones in an event loop of theirs.

Not in the caller's: an agent that blocks, as most do somewhere, would wait for an emulator that waits for it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from emulator.trainer.agents import AgentFailed
from emulator.trainer.agents.answers import check_document, shortened


class PythonFunction:
    """`MODULE:FUNCTION`, found from the working directory too."""

    #: What it did was acknowledged before it returned.
    answers_when_done = True

    def __init__(self, target: str) -> None:
        """Raises ValueError."""
        module, _, name = target.partition(":")
        if not module or not name:
            raise ValueError("a function is named like python:MODULE:FUNCTION")
        self._target = target
        self._module, self._name = module, name
        self._function: Callable[[dict[str, Any]], Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    async def start(self, patience: float) -> None:  # noqa: ARG002 - an import cannot be interrupted
        """Import it, with the working directory in the path. Raises AgentFailed."""
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        try:
            found: Any = importlib.import_module(self._module)
            for part in self._name.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # whatever its module raises
            raise AgentFailed(f"python:{self._target} cannot be imported: {_said(error)}") from error
        if not callable(found):
            raise AgentFailed(f"python:{self._target} is no function")
        self._function = found
        if _is_coroutine_function(found):
            self._loop = await _start_loop(self._ended)

    async def roll_out(self, request: Mapping[str, Any], trajectory_id: str) -> None:
        """Call it. A plain function whose caller has gone goes on until it returns. Raises AgentFailed."""
        assert self._function is not None, "started"
        try:
            if self._loop is not None:
                running = asyncio.run_coroutine_threadsafe(_finish(self._function(_own(request))), self._loop)
                answer = await asyncio.wrap_future(running)
            else:
                answer = await _in_thread(self._function, _own(request), trajectory_id)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise AgentFailed("the agent raised CancelledError") from None
        except AgentFailed:
            raise
        except Exception as error:
            raise AgentFailed(f"the agent raised {_said(error)}") from error
        check_document(answer)

    async def aclose(self) -> None:
        """End the event loop of asynchronous agents; one that is blocked ends with the process."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)


def _own(request: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that the agent may change; by way of JSON, which goes as deep as a dataset can."""
    copy: dict[str, Any] = json.loads(json.dumps(request))
    return copy


def _is_coroutine_function(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def _start_loop(ended: asyncio.Event) -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, until the event, which belongs to it, is set."""
    ours = asyncio.get_running_loop()
    started: asyncio.Future[asyncio.AbstractEventLoop] = ours.create_future()

    async def main() -> None:
        ours.call_soon_threadsafe(started.set_result, asyncio.get_running_loop())
        await ended.wait()

    threading.Thread(target=lambda: asyncio.run(main()), name="agents", daemon=True).start()
    return await started


async def _in_thread(function: Callable[[dict[str, Any]], Any], request: dict[str, Any], name: str) -> Any:
    """Call it in a thread of its own, which nobody waits for at the end: it may hang."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def finish(answer: Any, error: BaseException | None) -> None:
        if future.done():  # nobody waits any longer
            return
        if error is None:
            future.set_result(answer)
        elif isinstance(error, AgentFailed):
            future.set_exception(error)
        else:  # wrapped, as a future takes no StopIteration
            future.set_exception(AgentFailed(f"the agent raised {_said(error)}"))

    def run() -> None:
        answer, problem = None, None
        try:
            answer = function(request)
            if isinstance(answer, Awaitable):
                answer = asyncio.run(_finish(answer))
        except BaseException as error:  # sys.exit in an agent must not end anything but it
            problem = error
        try:
            loop.call_soon_threadsafe(finish, answer, problem)
        except RuntimeError:  # the event loop has ended
            return

    threading.Thread(target=run, name=f"rollout {name}", daemon=True).start()
    return await future


async def _finish(work: Awaitable[Any]) -> Any:
    """Await an agent's work. Raises AgentFailed for what would end its event loop, and then ours."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise AgentFailed(f"the agent raised {_said(error)}") from error


def _said(error: BaseException) -> str:
    return shortened(f"{type(error).__name__}: {error}")
