"""Between a client and a PostgreSQL server: forwards messages of the wire protocol, and loses the one it is told to."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import count

from emulator.address import DatabaseURL
from tests.stored import PATIENCE


class Fate(Enum):
    """What becomes of a client's message, and of its connection then."""

    PASSES = "passes"
    IS_LOST = "is lost"  #: and both sides find the connection cut
    LOSES_ITS_ANSWER = "loses its answer"  #: the server has done what it asks for; then the connection is cut
    IS_HELD = "is held"  #: the client finds the connection cut; the server hears of it, or of the end, when told
    SILENCE = "silence"  #: the connection stays, but nothing goes through any more, either way


#: A message's type (the first, which has none: empty) and what it says.
Decide = Callable[[bytes, bytes], Fate]

#: Whether a message is meant.
Which = Callable[[bytes, bytes], bool]

_READY = b"Z"


def is_answered(kind: bytes, _payload: bytes) -> bool:
    """Whether the server answers a message: a simple query, or the end of what belongs together."""
    return kind in (b"Q", b"S")


def is_commit(kind: bytes, payload: bytes) -> bool:
    """Whether a message asks for a commit."""
    return (kind, payload) == (b"Q", b"COMMIT\0")


def is_first(kind: bytes, _payload: bytes) -> bool:
    """Whether a message is a connection's first."""
    return kind == b""


def nth(number: int, which: Which) -> Which:
    """The message of that number, from 0, of those that are meant."""
    seen = count()
    return lambda kind, payload: which(kind, payload) and next(seen) == number


def passes(_kind: bytes, _payload: bytes) -> Fate:
    """Nothing happens."""
    return Fate.PASSES


class PostgreSQLProxy:
    """Connections to a server, each through here; `decide` says of each message what becomes of it."""

    def __init__(self, port: int) -> None:
        self.decide: Decide = passes
        self.happened = threading.Event()  #: what `once` said
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._refuses = False
        self._held: list[_Held] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def url(self, url: DatabaseURL) -> DatabaseURL:
        """The same database by way of here. Without encryption, which would hide what is said."""
        port = self._listener.getsockname()[1]
        there = re.sub(r"@127\.0\.0\.1:\d+", f"@127.0.0.1:{port}", url.conninfo)
        return DatabaseURL(f"{there}?sslmode=disable&gssencmode=disable")

    def once(self, fate: Fate, which: Which, *, then_refuse: bool = False) -> None:
        """Have the next message that is meant meet a fate, and no other; `happened` is set then.

        `then_refuse`: and let nobody in again, until `accept_connections`.
        """
        happened = self.happened = threading.Event()

        def decide(kind: bytes, payload: bytes) -> Fate:
            if not happened.is_set() and which(kind, payload):
                self._refuses = then_refuse
                happened.set()
                return fate
            return Fate.PASSES

        self.decide = decide

    def refuse_connections(self) -> None:
        """Let nobody in, until `accept_connections`."""
        self._refuses = True

    def accept_connections(self) -> None:
        """Let everybody in."""
        self._refuses = False

    def cut_all(self) -> None:
        """Cut all connections that there are."""
        while self._open:
            _cut(self._open.pop())

    def let_go(self, *, deliver: bool) -> None:
        """End what is held: the server gets the message, and does what it asks for, or only the end."""
        for held in self._held:
            if deliver:
                held.server.sendall(held.message)
                assert held.ready.wait(PATIENCE)
            _cut(held.server)
        self._held.clear()

    def close(self) -> None:
        """End all connections."""
        self._listener.close()
        self.let_go(deliver=False)
        self.cut_all()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self._refuses:
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:  # it is down
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(each)
        answers = _Answers(server, client)
        threading.Thread(target=answers.forward, daemon=True).start()
        keeps_server = False
        try:
            for kind, message in _messages(client, begins_untyped=True):
                match self.decide(kind, message[len(kind) + 4 :]):
                    case Fate.PASSES:
                        server.sendall(message)
                        continue
                    case Fate.LOSES_ITS_ANSWER:
                        answers.go_on = False
                        server.sendall(message)
                        if is_answered(kind, message):
                            assert answers.ready.wait(PATIENCE)
                    case Fate.IS_HELD:
                        answers.go_on = False
                        self._held.append(_Held(server, message, answers.ready))
                        keeps_server = True
                    case Fate.SILENCE:
                        answers.go_on = False
                        while client.recv(65536):  # until it has had enough
                            pass
                return
        except OSError:
            pass
        finally:
            _cut(client)
            if not keeps_server:
                _cut(server)


class _Held:
    """A message on its way to a server that has not arrived yet."""

    def __init__(self, server: socket.socket, message: bytes, ready: threading.Event) -> None:
        self.server, self.message, self.ready = server, message, ready


class _Answers:
    """The way back."""

    def __init__(self, server: socket.socket, client: socket.socket) -> None:
        self._server, self._client = server, client
        self.go_on = True
        self.ready = threading.Event()  #: when the server has answered, and the client does not hear of it

    def forward(self) -> None:
        with contextlib.suppress(OSError):
            for kind, message in _messages(self._server):
                if self.go_on:
                    self._client.sendall(message)
                elif kind == _READY:
                    self.ready.set()
        self.ready.set()  # it will say no more
        if self.go_on:
            _cut(self._client)


def _messages(sock: socket.socket, *, begins_untyped: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """The type of each message and all of its bytes, until the end."""
    with sock.makefile("rb") as stream:
        untyped = begins_untyped
        while True:
            kind = b"" if untyped else stream.read(1)
            head = stream.read(4)
            if len(head) < 4:
                return
            untyped = False
            yield kind, kind + head + stream.read(struct.unpack("!I", head)[0] - 4)


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@contextmanager
def postgresql_proxy(port: int) -> Iterator[PostgreSQLProxy]:
    """A proxy before the server on this port."""
    it = PostgreSQLProxy(port)
    try:
        yield it
    finally:
        it.close()
