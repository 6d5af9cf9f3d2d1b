"""Pure: what `--database` names, a SQLite file or a PostgreSQL database."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")

#: Greedy, up to the last @: a password in which something was not percent-encoded is hidden too.
_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*):.*@", re.DOTALL)

#: What of libpq's parameters nobody should read.
_SECRET_PARAMETERS = ("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")


class DatabaseURL:
    """Where a PostgreSQL database is. As a text it can be shown: passwords in it are hidden."""

    __slots__ = ("conninfo",)

    def __init__(self, text: str) -> None:
        """Raises ValueError for another kind of URL."""
        scheme, _, rest = text.partition("://")
        if scheme.lower() not in _POSTGRESQL:
            raise ValueError(
                f"{scheme}://… is not possible; a file's path is (SQLite), or postgresql://USER:PASSWORD@HOST:PORT/NAME"
            )
        self.conninfo = f"postgresql://{rest}"  #: as libpq reads it, passwords included

    def __str__(self) -> str:
        """The URL without its passwords."""
        return shown(self.conninfo)

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        """Whether both are spelled the same."""
        return isinstance(other, DatabaseURL) and self.conninfo == other.conninfo

    def __hash__(self) -> int:
        """As equality has it."""
        return hash(self.conninfo)


#: A SQLite file, or a PostgreSQL database.
Address = Path | DatabaseURL


def parse_address(text: str) -> Address:
    """What a text names. Raises ValueError for a URL of something else."""
    return DatabaseURL(text) if _URL.fullmatch(text) else Path(text)


def shown(text: str) -> str:
    """The text of an address as it may be shown: without passwords, whatever else is wrong with it."""
    if not _URL.fullmatch(text):
        return text
    address, mark, query = _PASSWORD.sub(r"\1:***@", text).partition("?")
    return address + mark + "&".join(map(_shown_parameter, query.split("&")))


def _shown_parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    return f"{name}{equals}{'***' if value and unquote(name) in _SECRET_PARAMETERS else value}"
