"""Web pages in a browser of this machine reach this server as everybody does: which of them may talk to it.

A browser names the page's site in Origin whenever it posts, puts or deletes, and a page cannot change that. So Origin
has to be the Host; and as a page can lead a name of its own to this machine (DNS rebinding), that has to be none that
anyone could register. With GET a browser sends no Origin, but to loopback it says in Sec-Fetch-Site whose page asks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from emulator.protocol.errors import AccessDeniedException

#: Names under these cannot be registered by anyone: RFC 6761, RFC 6762, ICANN's `internal`.
_PRIVATE_DOMAINS = frozenset({"internal", "local", "localhost", "test"})
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::[0-9]*)?", re.ASCII)

#: What Sec-Fetch-Site says of other pages; those of another port are of the same site.
_OTHER_SITES = (b"cross-site", b"same-site")

#: Of AWS's own names, which clients under `run` send.
AWS_DOMAINS = ("amazonaws.com", "amazonaws.com.cn", "aws")


def name_of(host: str) -> str | None:
    """The name or address in a Host header, in lower case; None if there is none."""
    match = _HOST.fullmatch(host)
    return None if match is None else (match[1] or match[2]).lower()


def is_aws(host: str) -> bool:
    """Whether a host's name is one of AWS's."""
    return host.lower().rstrip(".").endswith(tuple(f".{domain}" for domain in AWS_DOMAINS))


def is_private(name: str) -> bool:
    """Whether it is an address, or a name that nobody can register."""
    return _is_address(name) or "." not in name or name.rpartition(".")[2] in _PRIVATE_DOMAINS


def refuse_other_sites(headers: Mapping[bytes, bytes]) -> None:
    """No web page may talk to this server but its own. Raises AccessDeniedException."""
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
        raise AccessDeniedException("Requests from other web sites are refused")


def refuse_web_pages(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what a page of another site has a browser ask of an operation. Raises AccessDeniedException."""
    if b"origin" not in headers:
        return
    refuse_other_sites(headers)
    host = headers[b"host"].decode("latin-1") if b"host" in headers else ""
    name = name_of(host)
    if name is None or not is_private(name):
        raise AccessDeniedException(
            f"Web pages of {host!r} are refused: anyone could lead that name here; "
            "ask as localhost, by an address, or by a name that nobody can register"
        )


def refuse_embedded(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what pages have fetched with GET, as images and scripts. Raises AccessDeniedException."""
    # To follow a link is the user's doing.
    if headers.get(b"sec-fetch-site") in _OTHER_SITES and headers.get(b"sec-fetch-mode") != b"navigate":
        raise AccessDeniedException("Requests from other web sites are refused")


def refuse_other_names(headers: Mapping[bytes, bytes], own_name: str) -> None:
    """Refuse who came by a name that could be anyone's; `own_name`: of this server. Raises AccessDeniedException."""
    host = headers.get(b"host", b"").decode("latin-1")
    name = name_of(host)
    if name is None or not (is_private(name) or name == own_name.lower() or is_aws(name)):
        raise AccessDeniedException(
            f"This is not served as {host!r}, which anyone could lead here: ask for it as localhost, or as --host says"
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
