"""`/_emulator/faults`: what goes wrong on purpose."""

from __future__ import annotations

import json

from starlette.requests import Request

from emulator.faults import Fault, InvalidFault, fault_of
from emulator.management.emulator import Emulator, json_answer
from emulator.protocol.answer import Answer
from emulator.protocol.endpoint import read_body
from emulator.protocol.errors import SerializationException, ValidationException


async def add_faults(emulator: Emulator, request: Request) -> Answer:
    """POST: one fault, or `{"faults": […]}`; all of them or none. Answers with those in effect."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    body = await read_body(headers, request.scope, request.receive, emulator.settings.max_request_bytes)
    for fault in _faults(body):
        emulator.faults.add(fault)
    return await list_faults(emulator, request)


async def list_faults(emulator: Emulator, _request: Request) -> Answer:
    """GET: those in effect, each with how often it struck."""
    return json_answer({"faults": [given.document() for given in emulator.faults.given]})


async def clear_faults(emulator: Emulator, _request: Request) -> Answer:
    """DELETE: none from now on."""
    emulator.faults.clear()
    return Answer()


def _faults(body: bytes) -> list[Fault]:
    """Raises SerializationException, ValidationException."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise SerializationException("The body is not JSON") from None
    documents = document["faults"] if isinstance(document, dict) and document.keys() == {"faults"} else [document]
    if not isinstance(documents, list) or not documents:
        raise ValidationException("faults: must be a list of at least one fault")
    try:
        return [fault_of(each) for each in documents]
    except InvalidFault as error:
        raise ValidationException(str(error)) from None
