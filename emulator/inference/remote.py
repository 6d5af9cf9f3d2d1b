"""A model server somewhere else: any OpenAI-compatible server that speaks HTTP, vLLM first of all."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

from emulator import __version__
from emulator.inference.http_client import HTTPClient
from emulator.inference.model_server import Health, ModelAnswer, ModelRequest, ModelServerError

HEALTH_TIMEOUT = 2.0


class RemoteServer:
    """The `ModelServer` behind a URL; a trailing `/` or `/v1` of it is dropped, since requests bring their `/v1`.

    Raises ValueError if the URL is none, or the key cannot stand in a header.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 5.0,
        answer_timeout: float = 600.0,
        idle_timeout: float = 120.0,
        api_key: str | None = None,
        rewrite_model: str | None = None,
    ) -> None:
        tls, host, port, self._prefix = _parts(url)
        self._rewrite_model = rewrite_model
        self._headers = {"accept": "*/*", "user-agent": f"job-runtime-local/{__version__}"}
        if api_key:
            if not api_key.isascii() or not api_key.isprintable() or api_key.strip() != api_key:
                raise ValueError("the model server's API key has characters that cannot stand in a header")
            self._headers["authorization"] = f"Bearer {api_key}"
        self._client = HTTPClient(
            host,
            port,
            tls=tls,
            connect_timeout=connect_timeout,
            answer_timeout=answer_timeout,
            idle_timeout=idle_timeout,
        )

    def __repr__(self) -> str:
        return f"RemoteServer({self._client.authority + self._prefix!r})"

    async def start(self) -> None:
        """Nothing to do: connections are made when they are needed."""

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Forward the request, its body as it is unless `rewrite_model` is set. Raises ModelServerError."""
        body, headers = request.body, self._headers
        if body:
            headers = {**headers, "content-type": request.content_type}
            if self._rewrite_model is not None:
                body = _with_model(body, self._rewrite_model)
        return await self._client.request(
            request.method, self._prefix + request.path, headers, body, request.header_lines
        )

    async def health(self) -> Health:
        """Ask `/health`, vLLM's question, or `/v1/models` of a server without it. At most 2 s; never raises."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                status = await self._status_of("/health")
                if 200 <= status < 300:
                    return Health(True, "ready")
                if status not in {404, 405, 501}:
                    return Health(False, f"GET /health answered {status}")
                status = await self._status_of("/v1/models")
        except TimeoutError:
            return Health(False, f"no answer within {HEALTH_TIMEOUT:g} s")
        except ModelServerError as error:
            return Health(False, str(error))
        return Health(status < 500, f"GET /v1/models answered {status}")

    def reset(self) -> None:
        """Nothing to forget."""

    async def aclose(self) -> None:
        """End all connections; answers still on their way break."""
        await self._client.aclose()

    async def _status_of(self, path: str) -> int:
        answer = await self._client.request("GET", self._prefix + path, self._headers)
        answer.close()
        return answer.status


def _parts(url: str) -> tuple[bool, str, int, str]:
    """Whether TLS, the host, the port and the path before `/v1`. No error quotes the URL, as it may hold a secret."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the model server's URL must be printable ASCII, without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or parts.scheme not in {"http", "https"}:
        raise ValueError("the model server's URL must look like http://HOST:PORT or https://HOST")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("the model server's URL must have no user, password, query or fragment")
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return tls, host, port or (443 if tls else 80), prefix


def _with_model(body: bytes, model: str) -> bytes:
    """The body with another `model`; one that is no JSON object stays as it is, for the model server to complain."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(document, dict):
        return body
    document["model"] = model
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can say
        return json.dumps(document).encode()
