"""OpenTelemetry's spans of a request, where its packages are installed and the environment asks for them.

Configured by the standard `OTEL_*` variables, which its SDK reads. Nothing of it is imported otherwise. A span says
who, what and how long; never what was written, nor anybody's credentials.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from emulator import __version__
from emulator.completion import Completion, read_completion

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

log = logging.getLogger(__name__)

#: Seconds that the last spans get to leave when the server stops.
LAST_EXPORT = 5.0

#: Characters of a text of the client's, or the model's, that an attribute takes.
MAX_TEXT = 256

#: What a path of the model server does, in the words of the semantic conventions for generative AI.
GEN_AI_OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}

_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class NoExporter(Exception):
    """OTEL_TRACES_EXPORTER, or the protocol, names something that is not installed."""


def is_configured(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for spans: an exporter, or an endpoint for the usual one."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return exporter.lower() != "none" if exporter else any(environment.get(name) for name in endpoints)


def make_tracing(environment: Mapping[str, str]) -> Tracing | None:
    """What makes spans, if the environment asks for them; if that cannot be done, a warning says why."""
    if not is_configured(environment):
        return None
    try:
        return Tracing(_provider(environment))
    except ImportError as error:
        why = f"{error.name or error} is not installed: pip install 'job-runtime-local[otel]'"
    except NoExporter as error:
        why = str(error)
    log.warning("OpenTelemetry is configured, but there will be no spans: %s", why)
    return None


def _provider(environment: Mapping[str, str]) -> TracerProvider:
    """Raises ImportError, NoExporter."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    names = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    exporters = [_exporter(name.strip(), environment) for name in names.split(",")]
    ours = Resource.create({"service.name": "job-runtime-local", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(name: str, environment: Mapping[str, str]) -> SpanExporter:
    """Raises NoExporter."""
    from importlib.metadata import entry_points

    if name == "otlp":
        protocol = (
            environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        ).strip()
        name = _PROTOCOLS.get(protocol, protocol)
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise NoExporter(f"there is no exporter {name!r}; 'otlp' comes with pip install 'job-runtime-local[otel]'")
    exporter: SpanExporter = next(iter(found)).load()()
    return exporter


class Tracing:
    """Makes the spans of each request."""

    def __init__(self, provider: TracerProvider) -> None:
        """Raises ImportError."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("job-runtime-local", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, scope: Scope, request_id: str, *, is_known: bool) -> Spans:
        """The span of a request that has arrived, below its client's. `is_known`: the path is an operation's."""
        from opentelemetry.trace import SpanKind

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.path": path[:MAX_TEXT],
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
            "aws.request_id": request_id,
        }
        if is_known:
            attributes["http.route"] = path
        if scope.get("server"):
            attributes["server.address"], attributes["server.port"] = scope["server"]
        if "user-agent" in headers:
            attributes["user_agent.original"] = headers["user-agent"][:MAX_TEXT]
        span = self._tracer.start_span(
            f"{method} {path}" if is_known else method,
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        return Spans(self, span)

    def ask(self, parent: Span, name: str, asked_at: int) -> tuple[Span, dict[str, str]]:
        """The span of a request to the model server, and the headers that take it there."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        context = set_span_in_context(parent)
        span = self._tracer.start_span(name, context=context, kind=SpanKind.CLIENT, start_time=asked_at)
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(span))
        return span, headers

    def close(self) -> None:
        """Send what is left, and end; a collector that does not answer is not waited for."""
        # A daemon: the SDK's own limit is 30 s, and a process waits for other threads.
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        thread.join(LAST_EXPORT)


@dataclass(slots=True)
class _Answer:
    """What came of a request to the model server."""

    status: int | None
    error: str | None  #: the class of error that it ended with
    first_byte_at: int | None  #: microseconds since 1970
    ended_at: int  #: nanoseconds since 1970
    request: bytes
    response: bytes
    content_type: str | None


class Spans:
    """The spans of one request: its own, and below it that of the model server's part."""

    __slots__ = ("_answer", "_asked_at", "_model", "_path", "_server", "_tracing")

    def __init__(self, tracing: Tracing, server: Span) -> None:
        self._tracing = tracing
        self._server = server
        self._model: Span | None = None
        self._path = ""
        self._asked_at = 0
        self._answer: _Answer | None = None

    def ask(self, method: str, path: str) -> dict[str, str]:
        """The model server is about to be asked; the headers that tell it of the span."""
        self._path = path
        self._asked_at = time.time_ns()
        name = GEN_AI_OPERATIONS.get(path, f"{method} {path}")
        self._model, headers = self._tracing.ask(self._server, name, self._asked_at)
        return headers

    def answered(
        self,
        *,
        status: int | None,
        error: str | None = None,
        first_byte_at: int | None = None,
        request: bytes = b"",
        response: bytes = b"",
        content_type: str | None = None,
    ) -> None:
        """It has answered, or it never will. What that says is read when the client has its answer."""
        self._answer = _Answer(status, error, first_byte_at, time.time_ns(), request, response, content_type)

    def end(
        self,
        *,
        status: int | None,
        code: str,
        is_error: bool,
        job_arn: str | None,
        trajectory_id: str | None,
        turn: int | None,
    ) -> None:
        """The request is over."""
        which = {"job_runtime.job_arn": job_arn, "job_runtime.trajectory_id": trajectory_id, "job_runtime.turn": turn}
        if self._model is not None:
            _set(self._model, {**which, "gen_ai.conversation.id": trajectory_id})
            self._end_model(self._model)
        _set(self._server, {**which, "http.response.status_code": status, "job_runtime.code": code})
        if is_error:
            _fail(self._server, code)
        self._server.end()

    def _end_model(self, span: Span) -> None:
        answer = self._answer
        if answer is None:
            span.end()
            return
        failed = answer.error or (str(answer.status) if answer.status and answer.status >= 400 else None)
        if failed:
            _fail(span, failed)
        _set(span, {"http.response.status_code": answer.status})
        if (operation := GEN_AI_OPERATIONS.get(self._path)) and span.is_recording():
            read = read_completion(answer.request, answer.response, answer.content_type)
            _describe(span, operation, read)
            if read.streamed and answer.first_byte_at is not None:
                seconds = answer.first_byte_at / 1e6 - self._asked_at / 1e9
                _set(span, {"gen_ai.response.time_to_first_chunk": seconds})
        span.end(answer.ended_at)


def _describe(span: Span, operation: str, read: Completion) -> None:
    """What the exchange was, as the semantic conventions for generative AI (1.41, in development) have it."""
    asked = read.request or {}
    model = asked.get("model")
    if isinstance(model, str):
        span.update_name(f"{operation} {model[:MAX_TEXT]}")
        _set(span, {"gen_ai.request.model": model[:MAX_TEXT]})
    reasons = [choice.finish_reason for choice in read.choices if choice.finish_reason]
    _set(
        span,
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "openai",  # the kind of API, whoever serves it
            "gen_ai.request.stream": True if read.streamed else None,
            "gen_ai.response.model": read.model[:MAX_TEXT] if read.model and read.choices else None,
            "gen_ai.response.finish_reasons": reasons or None,
            "gen_ai.usage.input_tokens": read.usage.prompt_tokens if read.usage else None,
            "gen_ai.usage.output_tokens": read.usage.completion_tokens if read.usage else None,
        },
    )


def _set(span: Span, attributes: Mapping[str, Any]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _fail(span: Span, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
