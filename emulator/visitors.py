"""Who may visit `/_emulator/`. Nobody shows credentials there, so everything else about a request has to be right.

* Its Host must be loopback's or the configured one. Against DNS rebinding: a web page can lead its own name to this
  machine, but not change what the browser then calls us. A server that listens to other machines has more names
  than it knows: there any address will do, and any name that nobody can register. So will the names of SageMaker's
  MLflow, by which clients behind the proxy of `job-runtime-local run` ask: whoever leads those here is no web page.
* Its Origin, if it has one, must be that Host, and Sec-Fetch-Site must not say cross-site: no other web site's page.
* With `--auth strict`, a server that listens to other machines answers loopback only: what is captured must not be
  had more easily than it was sent.
* A reverse proxy on this machine is loopback too. Where only loopback may ask, everybody in its X-Forwarded-For has to
  be loopback: the header can take trust away, and never give any.
"""

from __future__ import annotations

import re

from starlette.types import Scope

from emulator.protocol.errors import AccessDeniedException
from emulator.protocol.web_pages import is_private, name_of, refuse_other_sites
from emulator.settings import Settings, is_loopback

_MLFLOW = re.compile(r"mlflow\.sagemaker\.[a-z0-9-]+\.app\.aws|[a-z0-9-]+\.experiments\.sagemaker\.aws")


def refuse_strangers(scope: Scope, settings: Settings) -> None:
    """Check a request as the top of this module says. Raises AccessDeniedException."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if not _is_our_name(host, settings):
        raise AccessDeniedException(
            f"This is not served as {host!r}: ask for it as localhost, or as --host says; "
            "where that is not loopback, any address will do too"
        )
    refuse_other_sites(headers)
    if headers.get(b"sec-fetch-site") == b"cross-site":
        raise AccessDeniedException("Requests from other web sites are refused")
    if settings.auth == "strict" or is_loopback(settings.host):
        peer = (scope.get("client") or ("", 0))[0]
        if not all(is_loopback(address) for address in (peer, *_forwarded_for(scope))):
            raise AccessDeniedException("/_emulator answers this machine only")


def _forwarded_for(scope: Scope) -> list[str]:
    """For whom a proxy says that it asks; nobody, if there is none or if it does not say."""
    fields: list[tuple[bytes, bytes]] = scope["headers"]
    named = [value.decode("latin-1") for name, value in fields if name == b"x-forwarded-for"]
    return [address.strip() for address in ",".join(named).split(",")] if named else []


def _is_our_name(host: str, settings: Settings) -> bool:
    name = name_of(host)
    if name is None:
        return False
    if is_loopback(name) or name == settings.host.lower() or _MLFLOW.fullmatch(name):
        return True
    return not is_loopback(settings.host) and is_private(name)
