"""Who is compared: how each is started, where it takes a sample, and what keeps it from being run here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.native import MODEL_SERVER
from bench.templates import JOB_ARN, TRAJECTORY, chat_body, http_request

ROOT = Path(__file__).parent.parent
JSON = {"Content-Type": "application/json"}

#: What agents send, in bytes; and what they send after many turns.
SMALL, LARGE = 2 * 1024, 64 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender is started."""

    folder: Path  #: its own, empty
    port: int
    spare_port: int
    model_port: int
    database: Path | None = None  #: of ours; None: a new one

    @property
    def model_url(self) -> str:
        """The model server."""
        return f"http://127.0.0.1:{self.model_port}"


@dataclass(frozen=True, slots=True)
class Contender:
    """One system under measurement."""

    name: str
    about: str
    command: Callable[[Place], list[str]]
    needs: tuple[Path, ...]  #: files without which it cannot run
    path: str
    stream_path: str = ""  #: nothing: it has no streams
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    environment: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  #: instead of a chat
    is_ours: bool = False
    slow: bool = False  #: some hundred requests a second: what needs many is left out
    version: Callable[[], str] = lambda: ""

    @property
    def missing(self) -> str | None:
        """Why it cannot be run here; None: it can."""
        absent = [file for file in self.needs if not file.exists()]
        return f"{absent[0].name} is not installed" if absent else None

    def sample(self, size: int = SMALL) -> bytes:
        """A request for a whole answer."""
        return http_request("POST", self.path, self.headers, self.body or chat_body(size))

    def stream(self, size: int = SMALL) -> bytes:
        """A request for an answer in events."""
        return http_request("POST", self.stream_path, self.headers, chat_body(size, stream=True))


def _environment(name: str) -> Path:
    """Where scripts/build_peers.sh puts it."""
    return ROOT / ".environments" / (name if name in ("nginx", "vllm-router") else f"bench-{name}")


def _package_version(environment: str, package: str) -> Callable[[], str]:
    script = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"

    def version() -> str:
        python = _environment(environment) / "bin" / "python"
        return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()

    return version


_NGINX = _environment("nginx") / "bin" / "nginx"

_NGINX_CONFIGURATION = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_max_body_size 64m; client_body_buffer_size 1m;
    keepalive_requests 100000000; keepalive_timeout 3600;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream model {{ server 127.0.0.1:{model_port}; keepalive 512; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""


def _nginx(place: Place) -> list[str]:
    file = place.folder / "nginx.conf"
    file.write_text(_NGINX_CONFIGURATION.format(folder=place.folder, port=place.port, model_port=place.model_port))
    return [str(_NGINX), "-e", str(place.folder / "error.log"), "-c", str(file)]


def _nginx_version() -> str:
    said = subprocess.run([_NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2]


def _vllm_router(place: Place) -> list[str]:
    return [
        str(_environment("vllm-router") / "bin" / "vllm-router"),
        *("--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.spare_port)),
        # Of its policies the cheapest: the default looks for prefixes in the body.
        *("--worker-urls", place.model_url, "--policy", "round_robin", "--log-level", "warning"),
    ]


_LITELLM_CONFIGURATION = """\
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "{model_url}/v1", api_key: local}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


def _litellm(place: Place) -> list[str]:
    file = place.folder / "litellm.yaml"
    file.write_text(_LITELLM_CONFIGURATION.format(model_url=place.model_url))
    program = _environment("litellm") / "bin" / "litellm"
    return [str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]


def _rllm(place: Place) -> list[str]:
    return [
        str(_environment("rllm") / "bin" / "rllm-model-gateway"),
        *("--host", "127.0.0.1", "--port", str(place.port), "--worker", f"{place.model_url}/v1"),
        *("--db-path", str(place.folder / "rllm.db"), "--log-level", "warning"),
    ]


def _moto(place: Place) -> list[str]:
    return [str(_environment("moto") / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(place.port)]


def _ours(durability: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [
            str(Path(sys.executable).parent / "job-runtime-local"),
            *("serve", "--port", str(place.port), "--model", place.model_url, "--durability", durability),
            *("--database", str(place.database or place.folder / "bench.db"), "--log-level", "warning"),
        ]

    return command


def _our_contender(durability: str, about: str) -> Contender:
    headers = JSON | {
        "X-Amzn-SageMaker-Job-Arn": JOB_ARN,
        "X-Amzn-SageMaker-Trajectory-Id": f"bench-{TRAJECTORY}",
    }
    return Contender(
        name=durability,
        about=f"job-runtime-local --durability {durability}: {about}",
        command=_ours(durability),
        needs=(),
        path="/sample",
        stream_path="/sample-with-response-stream",
        headers=headers,
        is_ours=True,
    )


_CHAT = "/v1/chat/completions"
_STS_HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
    "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-west-2/sts/aws4_request, "
    "SignedHeaders=host, Signature=0",
}

DIRECT = Contender(
    "direct", "the model server itself, on the contenders' core",
    lambda place: [str(MODEL_SERVER), str(place.port)], (), _CHAT, _CHAT,
)  # fmt: skip
NGINX = Contender(
    "nginx", "proxy_pass, one worker, connections to the model server kept",
    _nginx, (_NGINX,), _CHAT, _CHAT, version=_nginx_version,
)  # fmt: skip
VLLM_ROUTER = Contender(
    "vllm-router", "Rust, captures nothing; policy round_robin",
    _vllm_router, (_environment("vllm-router") / "requirements.txt",), _CHAT, _CHAT,
    version=_package_version("vllm-router", "vllm-router"),
)  # fmt: skip
LITELLM = Contender(
    "litellm", "LiteLLM proxy, one worker, no database, no authentication",
    _litellm, (_environment("litellm") / "requirements.txt",), _CHAT, _CHAT,
    environment={
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    },
    slow=True,
    version=_package_version("litellm", "litellm"),
)  # fmt: skip
RLLM = Contender(
    "rllm", "rllm-model-gateway: captures into SQLite, after the answer",
    _rllm, (_environment("rllm") / "requirements.txt",),
    f"/sessions/bench-{TRAJECTORY}{_CHAT}", f"/sessions/bench-{TRAJECTORY}{_CHAT}",
    slow=True,
    version=_package_version("rllm", "rllm-model-gateway"),
)  # fmt: skip
MOTO = Contender(
    "moto", "moto server, STS GetCallerIdentity: no model behind it",
    _moto, (_environment("moto") / "requirements.txt",), "/",
    headers=_STS_HEADERS, body=b"Action=GetCallerIdentity&Version=2011-06-15", slow=True,
    version=_package_version("moto", "moto"),
)  # fmt: skip
FULL = _our_contender("full", "every commit flushed to the disk before the answer")
NORMAL = _our_contender("normal", "committed before the answer")
MEMORY = _our_contender("memory", "nothing on disk")

CONTENDERS = {each.name: each for each in (DIRECT, NGINX, VLLM_ROUTER, LITELLM, RLLM, MOTO, FULL, NORMAL, MEMORY)}
QUICK = ("direct", "nginx", "vllm-router", "full", "normal")
