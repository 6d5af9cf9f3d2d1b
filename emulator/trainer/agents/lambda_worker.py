"""A program: one Lambda execution environment. Imports a handler, then calls it with each event that comes.

    python lambda_worker.py FILE-DESCRIPTOR FOLDER MODULE-OR-FILE HANDLER

Over the socket come and go lines of JSON; what the handler prints goes its own way. Imports nothing of the
emulator.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

#: What a function is called where nothing says so.
HANDLERS = ("lambda_handler", "handler")

#: Bytes of the largest answer, as at Lambda.
MAX_ANSWER = 6_291_556

#: Characters of an error's message that are passed on.
MAX_MESSAGE = 100_000


class Context:
    """What a handler gets beside its event, as AWS documents it."""

    function_version = "$LATEST"
    memory_limit_in_mb = "512"
    log_group_name = "/aws/lambda/local"
    log_stream_name = "local"
    identity = None
    client_context = None

    def __init__(self, request_id: str, seconds: float) -> None:
        self.aws_request_id = request_id
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local")
        self.invoked_function_arn = (
            f"arn:aws:lambda:{os.environ.get('AWS_REGION', 'us-west-2')}:123456789012:function:{self.function_name}"
        )
        self._deadline = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """How long the handler may still take."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def find_handler(folder: str, source: str, name: str) -> Callable[[Any, Context], Any]:
    """Import the handler. Raises whatever its module raises, AttributeError, ImportError."""
    sys.path.insert(0, folder)
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(os.path.basename(source)[:-3], source)  # noqa: PTH119
        if spec is None or spec.loader is None:
            raise ImportError(f"{source} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    found = next((getattr(module, each) for each in ([name] if name else HANDLERS) if hasattr(module, each)), None)
    if not callable(found):
        raise AttributeError(f"{source} has no function {name or ' or '.join(HANDLERS)}")
    return found  # type: ignore[no-any-return]


def invoke(handler: Callable[[Any, Context], Any], line: str) -> dict[str, Any]:
    """Call the handler; its answer, or its error as Lambda puts it."""
    asked = json.loads(line)
    try:
        text = json.dumps(handler(asked["event"], Context(asked["id"], asked["seconds"])), ensure_ascii=False)
        if len(text.encode(errors="surrogatepass")) > MAX_ANSWER:
            problem = f"Response payload size exceeded maximum allowed payload size ({MAX_ANSWER} bytes)."
            return {"error": {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": problem}}
        return {"answer": json.loads(text)}
    except BaseException as error:
        return {"error": said(error)}


def said(error: BaseException) -> dict[str, Any]:
    """An error as a Lambda function answers with it."""
    traceback.print_exc()
    return {"errorType": type(error).__name__, "errorMessage": str(error)[:MAX_MESSAGE]}


def main(descriptor: str, folder: str, source: str, name: str) -> None:
    """Say that the handler is there, or why not; then serve it until the socket is closed."""
    with socket.socket(fileno=int(descriptor)) as channel, channel.makefile("rw", encoding="utf-8") as lines:

        def answer(document: dict[str, Any]) -> None:
            sys.stdout.flush()
            sys.stderr.flush()
            lines.write(json.dumps(document) + "\n")
            lines.flush()

        try:
            handler = find_handler(folder, source, name)
        except BaseException as error:
            answer({"error": said(error)})
            return
        answer({"ready": True})
        for line in lines:
            answer(invoke(handler, line))


if __name__ == "__main__":
    main(*sys.argv[1:])
