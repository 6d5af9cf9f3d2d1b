"""An answer of management's that is sent while it is made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emulator.calls import BROKEN_STREAM, CLIENT_GONE, current_call
from emulator.protocol.answer import StreamAnswer
from emulator.protocol.endpoint import EXCHANGE, ClientGone, Exchange, while_connected

log = logging.getLogger(__name__)


class Stream(Response):
    """Relays it. One that breaks leaves its response unfinished, so that the client notices."""

    def __init__(self, answer: StreamAnswer, headers: Mapping[str, str]) -> None:
        super().__init__(None, answer.status, headers)
        del self.headers["content-length"]
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        exchange: Exchange = scope["extensions"][EXCHANGE]
        call = current_call()
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await while_connected(self._answer.relay(exchange), scope)
        except ClientGone:
            call.code = CLIENT_GONE
        except asyncio.CancelledError:
            call.code, call.problem = BROKEN_STREAM, "The server is stopping"
        except Exception as error:
            call.code, call.problem = BROKEN_STREAM, str(error)
            log.exception("an answer broke off")
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
