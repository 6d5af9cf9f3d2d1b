"""moto in this process: a request in, a reply out. Imports moto: 1.7 s."""

from __future__ import annotations

import logging
import sys
from json import JSONDecodeError
from typing import Any
from wsgiref.types import WSGIEnvironment
from xml.parsers.expat import ExpatError

from botocore.model import OperationNotFoundError
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server import werkzeug_app

from emulator.aws.refusals import NotEmulated, SerializationException
from emulator.aws.request import Reply, Request
from emulator.protocol.errors import InternalServiceError

log = logging.getLogger(__name__)

#: moto's own pages, which change its state or write files: not for clients.
_MOTO_PATHS = ("/moto-api", "/favicon.ico", "/latest/meta-data/", "/latest/api/")

werkzeug_app.DISABLE_GLOBAL_CORS = True  # type: ignore[attr-defined]  # no web page has any business here
# moto says what it does not find on standard output, where nothing but ours belongs.
werkzeug_app.print = lambda *words: log.debug("%s", " ".join(map(str, words)))  # type: ignore[attr-defined]


class Moto:
    """moto, as one account sees it. What it holds is the process's: another one in it sees the same."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._application = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
        self._known: set[str] = set()

    def reset(self) -> None:
        """Forget everything."""
        moto_api_backend.reset()

    def backend(self, service: str, region: str) -> Any:
        """moto's own object that holds what a service has; `aws` is the region of those that have none."""
        from moto.backends import get_backend

        return get_backend(service)[self.account][region]  # type: ignore[call-overload]

    def call(self, request: Request) -> Reply:
        """Have a request served, in this thread. Raises NotEmulated, SerializationException, InternalServiceError."""
        if request.path.startswith(_MOTO_PATHS):
            raise NotEmulated(f"{request.method} {request.path} is not emulated")
        what = f"{request.service}: {request.operation or f'{request.method} {request.path}'}"
        environ = self._environ(request)  # after all that reads the body
        try:
            self._check_service(request, environ, what)
            reply = _run(self._application, environ)
        except NotImplementedError as error:
            raise NotEmulated(f"{what} is not emulated: moto says: {error}") from error
        except OperationNotFoundError as error:
            raise NotEmulated(f"{what} is no operation of this service") from error
        except ModuleNotFoundError as error:
            raise NotEmulated(f"{what} needs {error.name}: pip install 'moto[{request.service}]'") from error
        except (JSONDecodeError, ExpatError) as error:
            raise SerializationException(f"{what}: the body cannot be read: {error}") from error
        except NotEmulated:
            raise
        except Exception as error:
            log.exception("moto failed at %s", what)
            raise InternalServiceError(f"moto failed at {what}: {type(error).__name__}: {error}") from error
        if reply.status >= 400 and request.method != "HEAD" and _is_no_error(reply, request):
            raise NotEmulated(f"{what} is not emulated: moto answered {reply.status} and gave no error")
        return reply

    def _check_service(self, request: Request, environ: WSGIEnvironment, what: str) -> None:
        """Raises NotEmulated for a service that moto does not know, at which it would print and fail."""
        if request.service not in self._known:
            host = self._application.infer_service_region_host(environ, request.path)
            if host is not None and self._application.get_backend_for_host(host) is None:
                raise NotEmulated(f"{what} is not emulated: neither here nor by moto")
            self._known.add(request.service)

    def _environ(self, request: Request) -> WSGIEnvironment:
        request.file.seek(0)
        query = b"?" + request.query if request.query else b""
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": request.path.encode("utf-8", "surrogateescape").decode("latin-1"),
            "QUERY_STRING": request.query.decode("latin-1"),
            "RAW_URI": (request.raw_path + query).decode("latin-1"),  # S3's keys may hold anything
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(request.size),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": request.file,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        kept: dict[str, str] = {}  # names with an underscore, as moto's own server hands them on
        for raw_name, raw_value in request.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name in ("content-length", "transfer-encoding", "expect"):
                continue
            key = "CONTENT_TYPE" if name == "content-type" else environ_key_for_header(name)
            if "_" in name:
                if not should_preserve_original_header_name(name):
                    continue
                kept[key] = name
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = kept
        if self.account != DEFAULT_ACCOUNT_ID:
            environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account
        return environ


def _run(application: Any, environ: WSGIEnvironment) -> Reply:
    begun: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        begun[:] = [status, headers]

    pieces = application(environ, start_response)
    try:
        body = b"".join(pieces)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    status, headers = begun
    return Reply(
        int(status.split()[0]),
        [(name.lower().encode("latin-1"), str(value).encode("latin-1", "replace")) for name, value in headers],
        body,
    )


def _is_no_error(reply: Reply, request: Request) -> bool:
    """Whether it is werkzeug's page about a path that it does not know, or nothing at all."""
    if reply.body.lstrip()[:9].lower() == b"<!doctype":
        return True
    return not reply.body and request.service != "s3"
