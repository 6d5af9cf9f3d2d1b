"""Where settings come from: the command line, the environment, a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from emulator.agent_map import DEFAULT
from emulator.settings import InvalidSetting, Settings

ENVIRONMENT_PREFIX = "JOB_RUNTIME_LOCAL_"

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"


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
