"""Every setting, once: its name, type, default and help, whichever way it is given."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from emulator.address import Address, DatabaseURL, parse_address
from emulator.agent_map import DEFAULT, AgentMap

ENVIRONMENT_PREFIX = "JOB_RUNTIME_LOCAL_"

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"

MEBIBYTE = 1024 * 1024


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
        if self.mlflow not in {"serve", "off"} and not self.mlflow.startswith(("http://", "https://")):
            raise InvalidSetting(f"mlflow: {self.mlflow!r} is neither serve nor off, nor a URL")
        try:
            AgentMap.parse(self.agents)
        except ValueError as error:
            raise InvalidSetting(f"agents: {error}") from None


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


@dataclass(frozen=True, slots=True)
class SettingField:
    """How one setting is given: the names and the type that every source shares."""

    name: str
    type: type  #: str, int, float or bool; of a list, its elements' type
    default: Any
    help: str
    group: str  #: what help shows it with
    metavar: str | None
    choices: tuple[str, ...]
    is_list: bool
    is_secret: bool

    @property
    def option(self) -> str:
        """`--max-request-bytes`; of a list, which is given item by item, `--key-pair`."""
        name = self.name.removesuffix("s") if self.is_list else self.name
        return "--" + name.replace("_", "-")

    @property
    def shown_default(self) -> str:
        """The default as help shows it; of a list, its elements; "" for none."""
        if self.default in (None, (), False):
            return ""
        return ", ".join(self.default) if self.is_list else str(self.default)

    @property
    def variable(self) -> str:
        """`JOB_RUNTIME_LOCAL_MAX_REQUEST_BYTES`"""
        return ENVIRONMENT_PREFIX + self.name.upper()


def setting_fields() -> list[SettingField]:
    """Every setting, in the order in which help shows them."""
    hints = get_type_hints(Settings)
    return [_setting_field(each, hints[each.name]) for each in fields(Settings)]


def _setting_field(each: Any, hint: Any) -> SettingField:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    is_list = get_origin(hint) is tuple
    kind = next((kind for kind in (bool, int, float) if hint is kind), str)
    metadata = each.metadata
    return SettingField(
        each.name,
        kind,
        each.default,
        metadata["help"],
        metadata["group"],
        metadata["metavar"],
        choices,
        is_list,
        metadata["secret"],
    )


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none, a misspelt one say."""
    known = {each.variable for each in setting_fields()} | {CONFIG_VARIABLE}
    return sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def load_settings(given: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """Put settings together: `given` (the command line) over the environment over TOML over the defaults.

    Raises InvalidSetting.
    """
    table = {each.name: each for each in setting_fields()}
    values: dict[str, Any] = {}
    for name, value in (_read_toml(config) if config else {}).items():
        key = name.replace("-", "_")
        if key not in table:
            raise InvalidSetting(f"{config}: there is no setting {name!r}")
        values[key] = _convert(table[key], value, f"{config}: {name}")
    for each in table.values():
        if environment.get(each.variable):  # set, and not to nothing
            values[each.name] = _convert(each, environment[each.variable], each.variable)
    for name, value in given.items():
        if value is not None:
            values[name] = _convert(table[name], value, table[name].option)
    return Settings(**values)


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # few name a file

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidSetting(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: not TOML: {error}") from None


def _convert(each: SettingField, value: Any, source: str) -> Any:
    if each.name == "agents" and isinstance(value, dict):
        if not all(isinstance(agent, str) for agent in value.values()):
            raise InvalidSetting(f"{source}: must be a table of texts")
        value = [agent if arn == DEFAULT else f"{arn}={agent}" for arn, agent in value.items()]
    if each.is_list:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise InvalidSetting(f"{source}: must be a list of texts")
        return tuple(item for item in items if item)
    if each.type is bool:
        return _convert_bool(value, source)
    shown = "the value" if each.is_secret else repr(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidSetting(f"{source}: {shown} is not {_noun(each.type)}")
    try:
        converted = each.type(value)
        if each.type is int and converted != (int(value) if isinstance(value, str) else value):
            raise ValueError  # a fraction would be lost
    except (ValueError, OverflowError):
        raise InvalidSetting(f"{source}: {shown} is not {_noun(each.type)}") from None
    if each.choices and converted not in each.choices:
        raise InvalidSetting(f"{source}: {shown} is not one of {', '.join(each.choices)}")
    return converted


def _convert_bool(value: Any, source: str) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
        "": False,
    }
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise InvalidSetting(f"{source}: {value!r} is not true or false")


def _noun(kind: type) -> str:
    return {int: "a whole number", float: "a number"}.get(kind, "a text")
