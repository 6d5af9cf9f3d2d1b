"""uvicorn's HTTP/1.1 connection, with a limit on the head of a request, and with errors as AWS clients read them."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from emulator.protocol.endpoint import new_request_id
from emulator.protocol.errors import ValidationException, rest_json_body

#: Bytes of a request's head, beyond what arrives with its last piece.
MAX_HEAD = 64 * 1024


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    _in_head = True
    _head_bytes = 0  # what has come since the last request, which counts until the next one's head is whole

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is larger than {MAX_HEAD} bytes")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; another one may follow."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and hang up."""
        error = ValidationException(msg)
        body = rest_json_body(error)
        head = (
            b"HTTP/1.1 400 Bad Request\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n"
            b"x-amzn-requestid: %b\r\n"
            b"x-amzn-errortype: %b\r\n"
            b"connection: close\r\n\r\n"
        )
        self.transport.write(head % (len(body), new_request_id(), error.code.encode()) + body)
        self.transport.close()
