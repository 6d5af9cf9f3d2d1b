"""What Lambda says of an invocation: its reply, its errors, its log."""

from __future__ import annotations

import binascii
import json
import math

from emulator.aws.request import Reply
from emulator.trainer.agents.lambda_process import Function, Invocation

#: Bytes of an answer, as at AWS.
MOST_ANSWER = 6_291_556

#: Bytes of the log that LogResult holds.
TAIL = 4096


def reply_of(function: Function, invocation: Invocation, *, tail: bool) -> Reply:
    """What Invoke answers; `tail`: with the end of the log."""
    error = invocation.error
    said = error if error is not None else invocation.answer
    try:
        body = json.dumps(said, ensure_ascii=False).encode()  # its bytes are counted as the worker counts them
    except UnicodeEncodeError:  # half a character
        body = json.dumps(said).encode()
    if len(body) > MOST_ANSWER:
        message = f"Response payload size exceeded maximum allowed payload size ({MOST_ANSWER} bytes)."
        error = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
        body = json.dumps(error).encode()
    headers = [(b"content-type", b"application/json"), (b"x-amz-executed-version", function.version.encode())]
    if error is not None:
        headers.append((b"x-amz-function-error", b"Unhandled"))
    if tail:
        text = "\n".join(log_lines(function, invocation)) + "\n"
        headers.append((b"x-amz-log-result", binascii.b2a_base64(text.encode()[-TAIL:], newline=False)))
    return Reply(200, headers, body)


def log_lines(function: Function, invocation: Invocation) -> list[str]:
    """The log of an invocation as Lambda has it; how much memory it took is not known here."""
    request_id, milliseconds = invocation.request_id, invocation.seconds * 1000
    error = invocation.error or {}
    lines = [f"START RequestId: {request_id} Version: {function.version}", *invocation.lines]
    if error.get("errorType") in {"Sandbox.Timedout", "Runtime.ExitError"}:
        lines.append(str(error["errorMessage"]))
    duration = f"Duration: {milliseconds:.2f} ms\tBilled Duration: {math.ceil(milliseconds)} ms"
    report = f"REPORT RequestId: {request_id}\t{duration}\tMemory Size: {function.memory} MB"
    return [*lines, f"END RequestId: {request_id}", report]
