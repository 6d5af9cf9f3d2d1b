"""A fault: which calls suffer it, and what happens to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal

from emulator.faults.kinds import KINDS, SERVICE_OPERATIONS
from emulator.protocol.service_model import load_service_model

#: So many, or a range from which each call gets its own.
Seconds = float | Sequence[float]


class InvalidFault(ValueError):
    """A fault that cannot be; the message is one line that says why. `option`: the one that is wrong, if it is one."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong (`kind`, see docs/faults.md) and for which calls; without more, for each that the kind fits.

    Raises InvalidFault for what cannot be, an error that an operation does not model, say.
    """

    kind: str
    _: KW_ONLY
    # Which calls suffer it: every kind has these.
    operation: str | Sequence[str] | None = None  #: by name; None: each that the kind fits
    job: str | None = None  #: its ARN, or a pattern with `*`, `?` and `[…]`
    trajectory: str | None = None  #: its id, or a pattern
    call: int | Sequence[int] | None = None  #: the n-th of the calls that are meant, from 1
    counted: Literal["trajectory", "all"] = "trajectory"  #: whether each trajectory counts its own calls
    share: float = 1.0  #: of the calls that are meant, by chance
    seed: int = 0  #: of chance: the same one, the same calls
    times: int | None = None  #: so often at most
    # What happens: each is an option of some kinds; None: as the kind has it.
    when: Literal["before", "during", "after"] | None = None  #: the work was done
    error: str | None = None  #: its name
    message: str | None = None
    retry_after: float | None = None  #: seconds
    seconds: Seconds | None = None
    first: Seconds | None = None  #: seconds until the answer begins
    status: int | None = None  #: of HTTP
    how: str | None = None
    after_events: int | None = None
    after_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidFault(f"{self.kind!r} is no kind of fault; there are {', '.join(KINDS)}", "kind")
        for name in ("operation", "call", "seconds", "first"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        _check_values(self)
        _check_kind(self)
        _check_operations(self)

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of those whose calls suffer it."""
        if self.operation is None:
            return KINDS[self.kind].operations
        return (self.operation,) if isinstance(self.operation, str) else tuple(self.operation)

    @property
    def calls(self) -> tuple[int, ...] | None:
        """The numbers of the calls that suffer it, of those that are meant; None: any."""
        return (self.call,) if isinstance(self.call, int) else None if self.call is None else tuple(self.call)

    @property
    def raises(self) -> str | None:
        """The name of the error that the service answers with, if it is an error of the service's own."""
        return self.error or KINDS[self.kind].error

    def means(self, operation: str, job_arn: str, trajectory_id: str) -> bool:
        """Whether a call is among those from which `call`, `share` and `times` choose."""
        return (
            operation in self.operations
            and (self.job is None or _matches(self.job, job_arn))
            and (self.trajectory is None or _matches(self.trajectory, trajectory_id))
        )

    def option(self, name: str) -> Any:
        """What an option of the kind is: as given, or as the kind has it."""
        given = getattr(self, name)
        return KINDS[self.kind].options.get(name) if given is None else given

    def document(self) -> dict[str, Any]:
        """As JSON has it: what was given, less what is so anyway."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            each.name: list(value) if isinstance(value := values[each.name], tuple) else value
            for each in fields(self)
            if each.default is MISSING or values[each.name] != each.default
        }


def fault_of(document: object) -> Fault:
    """A fault from its JSON. Raises InvalidFault."""
    if not isinstance(document, Mapping):
        raise InvalidFault("a fault is an object with a kind: {kind: rate-limit}")
    names = [each.name for each in fields(Fault)]
    for name in document:
        if name not in names:
            raise InvalidFault(f"there is no option {name!r}; there are {', '.join(names)}", str(name))
    if not isinstance(document.get("kind"), str):
        raise InvalidFault(f"a fault needs a kind; there are {', '.join(KINDS)}")
    return Fault(**document)


def _matches(pattern: str, value: str) -> bool:
    return pattern == value or fnmatchcase(value, pattern)


def _is_whole(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, tuple) and value != () and all(map(_is_text, value)))


def _are_calls(value: Any) -> bool:
    calls = value if isinstance(value, tuple) else (value,)
    return bool(calls) and all(_is_whole(each, 1) for each in calls)


def _are_seconds(value: Any) -> bool:
    low, high = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    return _is_number(low) and _is_number(high) and 0 <= low <= high


_SECONDS: tuple[Callable[[Any], bool], str] = (_are_seconds, "a number of seconds, or a range like [0.1, 0.5]")
_COUNT: tuple[Callable[[Any], bool], str] = (lambda value: _is_whole(value, 0), "a whole number from 0 on")
_TEXT: tuple[Callable[[Any], bool], str] = (_is_text, "a text")

#: What each option may be, and in words.
_VALUES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "operation": (_is_texts, "the name of an operation, or a list of them"),
    "job": _TEXT,
    "trajectory": _TEXT,
    "call": (_are_calls, "a number from 1 on, or a list of them"),
    "counted": (lambda value: value in ("trajectory", "all"), "trajectory or all"),
    "share": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, and at most 1"),
    "seed": (_is_whole, "a whole number"),
    "times": (lambda value: _is_whole(value, 1), "a whole number from 1 on"),
    "when": _TEXT,
    "error": _TEXT,
    "message": _TEXT,
    "retry_after": (lambda value: _is_number(value) and value >= 0, "a number of seconds"),
    "seconds": _SECONDS,
    "first": _SECONDS,
    "status": (lambda value: _is_whole(value, 300, 599), "a status of an error: 300 to 599"),
    "how": _TEXT,
    "after_events": _COUNT,
    "after_bytes": _COUNT,
}

#: The options that every kind has.
SELECTING = ("operation", "job", "trajectory", "call", "counted", "share", "seed", "times")


def _check_values(fault: Fault) -> None:
    """Each option by itself. Raises InvalidFault."""
    for each in fields(fault):
        value = getattr(fault, each.name)
        if each.name in _VALUES and value != each.default:
            is_right, what = _VALUES[each.name]
            if not is_right(value):
                raise InvalidFault(f"{each.name}: {value!r} is not {what}", each.name)


def _check_kind(fault: Fault) -> None:
    """Whether the kind has these options, and what it needs. Raises InvalidFault."""
    kind = KINDS[fault.kind]
    for name in _VALUES:
        value = getattr(fault, name)
        if name in SELECTING or value is None:
            continue
        if name not in kind.options:
            known = ", ".join(kind.options) or "none of its own"
            raise InvalidFault(f"{fault.kind} has no option {name!r}; it has {known}", name)
        if name in kind.choices and value not in kind.choices[name]:
            raise InvalidFault(f"{name}: {value!r} is none of {', '.join(kind.choices[name])}", name)
    for name in kind.needs:
        if getattr(fault, name) is None:
            raise InvalidFault(f"{fault.kind} needs {name}", "kind")
    if fault.after_events is not None and fault.after_bytes is not None:
        raise InvalidFault("after_bytes: give this or after_events", "after_bytes")
    if (fault.after_events, fault.after_bytes) != (None, None) and fault.option("when") in ("before", "after"):
        raise InvalidFault(f"{fault.kind}: after_events and after_bytes go with when: during", "kind")


def _check_operations(fault: Fault) -> None:
    """Whether the kind fits the operations, and botocore's model has the error. Raises InvalidFault."""
    fitting = KINDS[fault.kind].operations
    for name in fault.operations:
        if name not in fitting:
            raise InvalidFault(f"operation: {fault.kind} does not fit {name!r}, but {', '.join(fitting)}", "operation")
        modelled = load_service_model().operations[SERVICE_OPERATIONS[name]].errors
        if fault.raises is not None and fault.raises not in modelled:
            raise InvalidFault(
                f"error: {name} models no {fault.raises!r}; it models {', '.join(sorted(modelled))}", "error"
            )
