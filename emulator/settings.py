"""Every setting, once: its name, type, default and help."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from emulator.address import Address, DatabaseURL, parse_address
from emulator.agent_map import AgentMap

MEBIBYTE = 1024 * 1024

#: The role that whoever asks has taken: trusted by SageMaker, and allowed everything.
ROLE_NAME = "AmazonSageMaker-ExecutionRole"


class InvalidSetting(Exception):
    """A setting has a value that it cannot have; the message is one line that says which, and what it may be."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; other names than localhost count as not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _setting(default: Any, help_text: str, group: str, *, metavar: str | None = None, secret: bool = False) -> Any:
    metadata = {"help": help_text, "group": group, "metavar": metavar, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is told when it starts. Read once, passed down, never changed."""

    host: str = _setting("127.0.0.1", "address to listen on", "listening", metavar="ADDRESS")
    port: int = _setting(4580, "port to listen on; 0 picks a free one", "listening", metavar="PORT")
    insecure_remote: bool = _setting(
        False, "listen on an address that is not loopback although --auth is lenient", "listening"
    )
    database: str = _setting(
        "job-runtime-local.db",
        "what holds the trajectories: a SQLite file, or postgresql://USER:PASSWORD@HOST:PORT/NAME",
        "store",
        metavar="FILE|URL",
        secret=True,  # `shown_database` is not
    )
    durability: Literal["full", "normal", "memory"] = _setting(
        "full",
        "full: every answered call survives a power cut (fsync a commit); "
        "normal: survives a crash of the server (PostgreSQL: as full); memory: nothing on disk, for tests",
        "store",
    )
    database_timeout: float = _setting(
        30.0,
        "seconds that a request waits for PostgreSQL while it restarts, or cannot be reached",
        "store",
        metavar="SECONDS",
    )
    model: str = _setting(
        "scripted",
        "who answers: 'scripted' (embedded), 'scripted:FILE' (by rules, YAML or Python), "
        "'http://HOST:PORT' (any OpenAI-compatible server), 'vllm:MODEL [extra arguments]' (vLLM, started as a child), "
        "or 'cassette:FILE' (what one of them said once)",
        "model server",
        metavar="MODEL",
    )
    rewrite_model: str | None = _setting(
        None, 'replace the request\'s "model" by NAME on the way to the model server', "model server", metavar="NAME"
    )
    model_api_key: str | None = _setting(
        None,
        "Bearer key for the model server; better given by the environment",
        "model server",
        metavar="KEY",
        secret=True,
    )
    model_connect_timeout: float = _setting(
        5.0, "seconds to connect to the model server", "model server", metavar="SECONDS"
    )
    model_answer_timeout: float = _setting(
        600.0, "seconds until the model server's answer begins", "model server", metavar="SECONDS"
    )
    model_idle_timeout: float = _setting(
        120.0, "seconds between two pieces of the model server's answer", "model server", metavar="SECONDS"
    )
    vllm_python: str | None = _setting(
        None, "interpreter that has vLLM installed, for --model vllm:…", "model server", metavar="FILE"
    )
    vllm_log: str = _setting("job-runtime-local-vllm.log", "file for vLLM's log", "model server", metavar="FILE")
    record: str | None = _setting(
        None,
        "with --model cassette:FILE: who is asked what is not on the cassette, as --model names it; "
        "the answers are recorded",
        "cassette",
        metavar="MODEL",
    )
    cassette_ignores: tuple[str, ...] = _setting(
        ("user", "metadata", "request_id", "prompt_cache_key", "safety_identifier", "cache_salt"),
        "field of a request's body that may differ from the recorded request, as user or messages.*.name; "
        "may be given again",
        "cassette",
        metavar="FIELD",
    )
    cassette_pauses: Literal["none", "recorded"] = _setting(
        "none", "none: recorded answers come at once; recorded: with the pauses that the model made", "cassette"
    )
    cassette_used_up: Literal["repeat", "refuse"] = _setting(
        "repeat",
        "a request that is asked more often than it was recorded: repeat the last answer, or refuse",
        "cassette",
    )
    trajectories: Literal["implicit", "dispatched"] = _setting(
        "implicit",
        "implicit: a trajectory's first Sample creates it; dispatched: only registered trajectories exist",
        "semantics",
    )
    jobs: Literal["any", "strict"] = _setting(
        "any", "any: every job ARN is accepted; strict: only known jobs", "semantics"
    )
    agents: tuple[str, ...] = _setting(
        (),
        "the local agent of jobs: ARN=AGENT for one ARN, with or without a qualifier, AGENT alone for all others; in "
        "TOML a table too; see `job-runtime-local rollout --help` for what an agent may be; may be given again",
        "jobs",
        metavar="[ARN=]AGENT",
    )
    limits: Literal["local", "aws"] = _setting(
        "local",
        "aws: AWS's ranges of hyperparameters, one job of a category at a time, 5 new rollouts a second; "
        "local: whatever makes sense",
        "jobs",
    )
    policy_update: Literal["none"] = _setting(
        "none", "none: a training job rolls out and counts, and leaves the model as it is", "jobs"
    )
    mlflow: str = _setting(
        "serve",
        "who hears of jobs that name an MLflow: serve (`mlflow server`, started as a child when first needed; comes "
        "with the extra mlflow), http://HOST:PORT (one that runs), or off",
        "jobs",
        metavar="serve|off|URL",
    )
    mlflow_python: str | None = _setting(
        None, "interpreter that has MLflow installed, for --mlflow serve", "jobs", metavar="FILE"
    )
    region: str = _setting("us-west-2", "region that this server stands for", "semantics", metavar="REGION")
    auth: Literal["lenient", "strict"] = _setting(
        "lenient", "lenient: any or no credentials; strict: signatures and tokens are verified", "authentication"
    )
    key_pairs: tuple[str, ...] = _setting(
        (),
        "for --auth strict: KEY_ID:SECRET[:SESSION_TOKEN]; may be given again; better given by the environment",
        "authentication",
        metavar="PAIR",
        secret=True,
    )
    account: str | None = _setting(
        None, "for --auth strict: the account whose jobs may be used (12 digits)", "authentication", metavar="ACCOUNT"
    )
    max_request_bytes: int = _setting(64 * MEBIBYTE, "largest request body", "limits", metavar="BYTES")
    max_answer_bytes: int = _setting(64 * MEBIBYTE, "largest answer of the model", "limits", metavar="BYTES")
    max_in_flight: int = _setting(4096, "samples in flight at once; more are throttled", "limits", metavar="N")
    shutdown_timeout: float = _setting(
        10.0, "seconds that open requests get to finish when the server is told to stop", "limits", metavar="SECONDS"
    )
    faults: str | None = _setting(
        None, "plan of faults that calls suffer, to see what an agent does then (YAML)", "faults", metavar="FILE"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "debug: a line for every request; info: for those refused; warning: for those that failed", "log"
    )
    log_format: Literal["text", "json"] = _setting("text", "how log lines are written to standard error", "log")

    @property
    def agent_map(self) -> AgentMap:
        """The agents by their ARNs."""
        return AgentMap.parse(self.agents)

    @property
    def own_account(self) -> str:
        """The account that jobs are created in."""
        return self.account or "123456789012"

    @property
    def shown_model(self) -> str:
        """The model as it may be shown: a secret may be among vLLM's arguments."""
        return _shown_model(self.model)

    @property
    def shown_record(self) -> str | None:
        """Who is recorded, as it may be shown."""
        return None if self.record is None else _shown_model(self.record)

    @property
    def address(self) -> Address:
        """What `database` names."""
        return parse_address(self.database)

    @property
    def shown_database(self) -> str:
        """The database as it may be shown: a URL holds a password."""
        return str(self.address)

    def __post_init__(self) -> None:
        """Check what one setting alone, or two together, can get wrong. Raises InvalidSetting."""
        _check_ranges(self)
        if self.account is not None and not re.fullmatch("[0-9]{12}", self.account):
            raise InvalidSetting(f"account: {self.account!r} is not a number of 12 digits")
        if not self.host:
            raise InvalidSetting("host: must name an address")
        if not is_loopback(self.host) and self.auth != "strict" and not self.insecure_remote:
            raise InvalidSetting(
                f"host: {self.host} can be reached from other machines; "
                "add --auth strict with --key-pair, or --insecure-remote if you mean it"
            )
        if self.auth == "strict" and not self.key_pairs:
            raise InvalidSetting("auth: strict needs at least one --key-pair KEY_ID:SECRET")
        _check_database(self)
        if self.record is not None and not self.model.startswith("cassette:"):
            raise InvalidSetting("record: needs --model cassette:FILE, which says where to")
        try:
            AgentMap.parse(self.agents)
        except ValueError as error:
            raise InvalidSetting(f"agents: {error}") from None
        if self.mlflow not in {"serve", "off"} and not self.mlflow.startswith(("http://", "https://")):
            raise InvalidSetting(f"mlflow: {self.mlflow!r} is neither serve nor off, nor a URL")


def _shown_model(model: str) -> str:
    return model.partition(" ")[0] + " …" if model.startswith("vllm:") else model


def _check_database(settings: Settings) -> None:
    if not settings.database:
        raise InvalidSetting("database: must name a file, or a PostgreSQL database")
    try:
        address = settings.address
    except ValueError as error:
        raise InvalidSetting(f"database: {error}") from None
    if isinstance(address, DatabaseURL) and settings.durability == "memory":
        raise InvalidSetting(
            f"durability: memory keeps nothing, and {address} keeps what is committed: leave out one of the two"
        )


def _check_ranges(settings: Settings) -> None:
    if not 0 <= settings.port <= 65535:
        raise InvalidSetting(f"port: {settings.port} is not between 0 and 65535")
    for name in (
        "database_timeout", "model_connect_timeout", "model_answer_timeout", "model_idle_timeout",
        "max_request_bytes", "max_answer_bytes", "max_in_flight",
    ):  # fmt: skip
        if not getattr(settings, name) > 0:
            raise InvalidSetting(f"{name}: must be greater than 0")
    if not 0 <= settings.shutdown_timeout < float("inf"):
        raise InvalidSetting("shutdown_timeout: must be a number of seconds, not negative")
