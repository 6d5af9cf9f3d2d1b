"""A program: one Lambda execution environment. Imports a handler, then calls it with each event that comes.

    python lambda_worker.py SOCKET LIFELINE FOLDER MODULE-OR-FILE HANDLER

Over the socket come and go lines of JSON; what the handler prints goes its own way, and after each invocation a line
that says that this was all. Errors are told as Lambda's own runtime tells them. Imports nothing of the emulator.

It is two processes: one serves, and the other waits for its end, or for that of the server, which holds the other end
of the lifeline; then it leaves nobody behind that the function has started. Nothing else would be left to do that
after a SIGKILL of the server.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: What a function is called where nothing says so.
HANDLERS = ("lambda_handler", "handler")

#: Bytes of the largest answer, as at Lambda.
MAX_ANSWER = 6_291_556

#: Characters of an error's message that are passed on.
MAX_MESSAGE = 100_000

#: Looks at what is left of a function's processes; each ends a generation of them.
ROUNDS = 100


class Context:
    """What a handler gets beside its event, as AWS documents it."""

    identity = None
    client_context = None

    def __init__(self, request_id: str, seconds: float, arn: str) -> None:
        self.aws_request_id = request_id
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/local")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "local")
        self.invoked_function_arn = arn
        self._deadline = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """How long the handler may still take."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


class RuntimeFault(Exception):
    """What Lambda's runtime finds wrong, not the function; `kind` is its name there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def find_handler(folder: str, source: str, name: str) -> Callable[[Any, Context], Any]:
    """Import the handler. Raises RuntimeFault, and whatever else its module raises."""
    sys.path.insert(0, folder)
    module = import_source(source)
    found = next((getattr(module, each) for each in ([name] if name else HANDLERS) if hasattr(module, each)), None)
    if not callable(found):
        missing = name or " or ".join(HANDLERS)
        raise RuntimeFault("Runtime.HandlerNotFound", f"Handler '{missing}' missing on module '{module.__name__}'")
    return found  # type: ignore[no-any-return]


def import_source(source: str) -> Any:
    """Import a module, or a file by its path. Raises RuntimeFault, and whatever else it raises."""
    is_file = os.path.isabs(source)  # noqa: PTH117
    name = os.path.basename(source)[:-3] if is_file else source  # noqa: PTH119
    try:
        if not is_file:
            return importlib.import_module(source)
        spec = importlib.util.spec_from_file_location(name, source)
        if spec is None or spec.loader is None:
            raise ImportError(f"{source} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except ImportError as error:
        raise RuntimeFault("Runtime.ImportModuleError", f"Unable to import module '{name}': {error}") from error
    except SyntaxError as error:
        message = f"Syntax error in module '{name}': {error}"
        raise RuntimeFault("Runtime.UserCodeSyntaxError", message) from error
    else:
        return module


def invoke(handler: Callable[[Any, Context], Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Call the handler; its answer, or its error."""
    try:
        answer = handler(asked["event"], Context(asked["id"], asked["seconds"], asked["arn"]))
        try:
            text = json.dumps(answer, ensure_ascii=False)
            if len(text.encode(errors="surrogatepass")) > MAX_ANSWER:
                problem = f"Response payload size exceeded maximum allowed payload size ({MAX_ANSWER} bytes)."
                raise RuntimeFault("Function.ResponseSizeTooLarge", problem)
            return {"answer": json.loads(text)}
        except (TypeError, ValueError, RecursionError) as error:
            raise RuntimeFault("Runtime.MarshalError", f"Unable to marshal response: {error}") from error
    except BaseException as error:
        return {"error": said(error, asked["id"])}


def said(error: BaseException, request_id: str) -> dict[str, Any]:
    """An error as a function answers with it; it is written into the log too."""
    kind = error.kind if isinstance(error, RuntimeFault) else type(error).__name__
    # What lies between this program and the function is nobody's concern.
    own = [each for each in traceback.extract_tb(error.__traceback__) if each.filename != __file__]
    own = [each for each in own if not each.filename.startswith("<frozen importlib")]
    stack = [] if isinstance(error, RuntimeFault) else traceback.format_list(own)
    shown = [f"[ERROR] {kind}: {error}"] + (["Traceback (most recent call last):", "".join(stack)] if stack else [])
    print("\n".join(shown).rstrip(), file=sys.stderr)
    return {"errorMessage": str(error)[:MAX_MESSAGE], "errorType": kind, "requestId": request_id, "stackTrace": stack}


def end_of_output(request_id: str) -> None:
    """Write what ends an invocation's output; a function may have closed it."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    with suppress(OSError):
        os.write(1, f"\0{request_id}\n".encode())


def stand_guard(lifeline: int, channel: int) -> None:
    """Fork. Returns in the child, which serves; its parent ends as the child does, and the child when we are told to.

    The parent's, not the child's, is the guard: a function that waits for its children meets none but its own.
    """
    call_kernel(36, 1)  # PR_SET_CHILD_SUBREAPER: what leaves the child's group and is orphaned becomes ours
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (lifeline, told, telling):
            os.close(descriptor)
        os.setpgid(0, 0)
        call_kernel(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        return
    with suppress(OSError):
        os.setpgid(child, child)  # whichever of the two is first
    os.close(channel)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    poll = select.poll()  # `select` takes no descriptor beyond 1023, as busy servers have
    for descriptor in (lifeline, told):
        poll.register(descriptor, select.POLLIN)
    status = None
    while status is None:
        if lifeline in dict(poll.poll()):
            break
        os.read(told, 4096)
        status = reap(child)
    for _ in range(ROUNDS):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        left = children()
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        status = reap(child) if status is None else status
        if not left:
            break
        time.sleep(0.01)
    end_like(status or 0)


def call_kernel(option: int, value: int) -> None:
    """Linux's prctl; elsewhere nothing."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def reap(child: int) -> int | None:
    """Reap what has ended; the exit code of the child, if that is among it."""
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == child:
                found = os.waitstatus_to_exitcode(status)
    return found


def children() -> list[int]:
    """The processes whose parent we are, where the kernel says so: Linux."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def end_like(code: int) -> None:
    """End with an exit code, or by the signal that it stands for."""
    if code < 0:
        with suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one dump is enough
        with suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        code = 128 - code
    os._exit(code)


def main(descriptor: str, lifeline: str, folder: str, source: str, name: str) -> None:
    """Say that the handler is there, or why not; then serve it until the socket is closed."""
    stand_guard(int(lifeline), int(descriptor))
    own = os.getpid()
    with socket.socket(fileno=int(descriptor)) as channel, channel.makefile("rw", encoding="utf-8") as lines:

        def answer(document: dict[str, Any], request_id: str) -> None:
            if os.getpid() != own:  # a fork of the function's, which has come back from it
                os._exit(0)
            end_of_output(request_id)
            lines.write(json.dumps(document) + "\n")
            lines.flush()

        try:
            handler = find_handler(folder, source, name)
        except BaseException as error:
            answer({"error": said(error, "")}, "init")
            return
        answer({"ready": True}, "init")
        for line in lines:
            asked = json.loads(line)
            answer(invoke(handler, asked), asked["id"])


if __name__ == "__main__":
    main(*sys.argv[1:])
