"""Clients in a process of their own, which do not take the test's time, nor the server's."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import uvloop

P = ParamSpec("P")
T = TypeVar("T")


class Progress(Protocol):
    """A number that a process counts up, and another reads."""

    value: int


class Load(Generic[T]):
    """Work under way."""

    def __init__(self, process: BaseProcess, progress: Progress, receiver: Connection) -> None:
        self._process = process
        self._progress = progress
        self._receiver = receiver

    @property
    def done(self) -> int:
        """How much of it is done."""
        return self._progress.value

    def until(self, count: int) -> None:
        """Wait until so much of it is done."""
        while self.done < count:
            assert self._process.is_alive()
            self._process.join(0.01)

    def result(self) -> T:
        """What came of it, once all is done. Raises EOFError if it failed, having shown why."""
        result: T = self._receiver.recv()
        return result


@contextmanager
def load(
    work: Callable[Concatenate[Progress, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> Iterator[Load[T]]:
    """Do `work` in another process; it ends with the block at the latest."""
    context = multiprocessing.get_context("spawn")
    progress: Progress = RawValue(ctypes.c_longlong, 0)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, progress, work, args, kwargs), daemon=True)
    process.start()
    sender.close()
    try:
        yield Load(process, progress, receiver)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _run(
    sender: Connection,
    progress: Progress,
    work: Callable[..., Coroutine[Any, Any, T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    sender.send(uvloop.run(work(progress, *args, **kwargs)))
