"""The constraints of the service model: required members, lengths, patterns, enums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from emulator.protocol.errors import ValidationException
from emulator.protocol.service_model import Member, OperationModel


def validate(operation: OperationModel, arguments: Mapping[str, Any]) -> None:
    """Check decoded arguments. Raises one ValidationException that names every constraint that is broken."""
    broken: list[str] = []
    for member in operation.members:
        value = arguments[member.keyword]
        found = _broken_by_text(member, value) if type(value) is str else _broken_by_other(member, value)
        if found:
            broken += said_of(_place(member), None if isinstance(value, bytes) else value, found)
    refuse_broken(broken)


def refuse_broken(broken: Sequence[str]) -> None:
    """Raises ValidationException that names each constraint that is broken, if one is."""
    if broken:
        # ASSUMED: the wording that AWS's Java services share; the runtime's own is not public.
        noun = "error" if len(broken) == 1 else "errors"
        raise ValidationException(f"{len(broken)} validation {noun} detected: " + "; ".join(broken))


def said_of(place: str, value: object, constraints: Sequence[str]) -> list[str]:
    """That a value breaks these constraints."""
    where = f"Value {_quoted(value)} at '{place}' failed to satisfy constraint: "
    return [where + constraint for constraint in constraints]


def _broken_by_other(member: Member, value: Any) -> list[str]:
    # ASSUMED: an empty body is a body that is missing.
    if value is None or (member.is_payload and not value):
        return ["Member must not be null"] if member.required else []
    return []


@lru_cache(maxsize=4096)  # the turns of a rollout come with the same job and trajectory
def _broken_by_text(member: Member, value: str) -> list[str]:
    broken = []
    if member.minimum is not None and len(value) < member.minimum:
        broken.append(f"Member must have length greater than or equal to {member.minimum}")
    if member.maximum is not None and len(value) > member.maximum:
        broken.append(f"Member must have length less than or equal to {member.maximum}")
    # ASSUMED: a pattern has to match the whole value.
    elif member.pattern is not None and not member.pattern.fullmatch(value):
        broken.append(f"Member must satisfy regular expression pattern: {member.pattern.pattern}")
    # ASSUMED: a text without U+0000, which neither headers nor PostgreSQL can carry.
    if "\0" in value:
        broken.append("Member must not contain the character U+0000")
    if member.enum and value not in member.enum:
        broken.append(f"Member must satisfy enum value set: [{', '.join(member.enum)}]")
    return broken


def _quoted(value: Any) -> str:
    if value is None:
        return "null"
    text = str(value)
    return f"'{text[:64]}…'" if len(text) > 64 else f"'{text}'"


def _place(member: Member) -> str:
    return member.name[0].lower() + member.name[1:]
