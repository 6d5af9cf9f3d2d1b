"""A certificate authority for one run: AWS's names on this machine, believed by the one program that is told of it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import trustme

from emulator.offline.environment import BUNDLES


class Authority:
    """Its key is in memory only, and gone with the process."""

    def __init__(self) -> None:
        self._authority = trustme.CA(organization_name="job-runtime-local")
        self.context = lru_cache(maxsize=1024)(self._context)

    def _context(self, host: str) -> ssl.SSLContext:
        """For a server that is to be taken for `host`. Raises ValueError for what is no host's name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(host).configure_cert(context)
        return context

    def write_bundle(self, path: Path, environment: Mapping[str, str]) -> None:
        """Write what the program shall believe: this authority, and those that `environment` names, its user's own.

        The system's are left out: no server that they vouch for can be reached.
        """
        named = dict.fromkeys(environment.get(name, "") for name in BUNDLES)
        others = [file.read_bytes() for file in map(Path, filter(None, named)) if file.is_file()]
        path.write_bytes(b"\n".join([self._authority.cert_pem.bytes(), *others]))
