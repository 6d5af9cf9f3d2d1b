"""Lineage: artifacts, actions and contexts, and what is associated with what. moto 5.2.5 has nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from emulator.aws.paging import paged
from emulator.aws.place import Place
from emulator.protocol.errors import ResourceNotFound, ValidationException
from emulator.store import now

#: What the documents on disk are of.
ASSOCIATION = "association"


@dataclass(frozen=True, slots=True)
class Kind:
    """Artifacts, actions or contexts: what their members are called."""

    name: str
    plural: str
    described_by: str  #: the member that names one

    @property
    def arn(self) -> str:
        """The member that holds the ARN."""
        return f"{self.name}_arn"


ARTIFACT = Kind("artifact", "artifact_summaries", "artifact_arn")
ACTION = Kind("action", "action_summaries", "action_name")
CONTEXT = Kind("context", "context_summaries", "context_name")
KINDS = (ARTIFACT, ACTION, CONTEXT)


async def create(kind: Kind, place: Place, *, tags: Any = None, **members: Any) -> dict[str, Any]:  # noqa: ARG001
    """Store one. Raises ValidationException for a name that is taken."""
    arn = place.arn(f"{kind.name}/{_own_id(kind, members)}")
    there = await _read(place, kind, arn)
    if there is None:
        document = {**members, kind.arn: arn, "creation_time": now(), "last_modified_time": now()}
        await place.in_thread(place.disk.put, kind.name, arn, document)
    elif kind is not ARTIFACT:  # ASSUMED: an artifact is its source: to create it again gives the same
        raise ValidationException(f"There is {arn} already")
    return {kind.arn: arn}


async def describe(kind: Kind, place: Place, **which: str) -> dict[str, Any]:
    """One of them. Raises ResourceNotFound."""
    return await _find(place, kind, which[kind.described_by])


async def update(
    kind: Kind, place: Place, *, properties: Any = None, properties_to_remove: Any = None, **members: Any
) -> dict[str, Any]:
    """Change what is given of one. Raises ResourceNotFound."""
    found = await _find(place, kind, members.pop(kind.described_by))
    kept = (found.get("properties") or {}) | (properties or {})
    found["properties"] = {name: value for name, value in kept.items() if name not in (properties_to_remove or ())}
    found |= {name: value for name, value in members.items() if value is not None}
    found["last_modified_time"] = now()
    await place.in_thread(place.disk.put, kind.name, found[kind.arn], found)
    return {kind.arn: found[kind.arn]}


async def delete(kind: Kind, place: Place, *, source: dict[str, Any] | None = None, **which: Any) -> dict[str, Any]:
    """Forget one. Raises ResourceNotFound, ValidationException."""
    name = which[kind.described_by]
    if name is None:
        if source is None:
            raise ValidationException("Either ArtifactArn or Source must be given")
        every = await _all(place, kind)
        name = next((each[kind.arn] for each in every if each["source"] == source), source["source_uri"])
    found = await _find(place, kind, name)
    await place.in_thread(place.disk.remove, kind.name, found[kind.arn])
    return {kind.arn: found[kind.arn]}


async def listing(
    kind: Kind,
    place: Place,
    *,
    source_uri: str | None,
    created_after: int | None,
    created_before: int | None,
    sort_by: str | None,
    sort_order: str | None,
    next_token: str | None,
    max_results: int | None,
    **of_type: str | None,
) -> dict[str, Any]:
    """Those that fit. Raises ValidationException."""
    ((type_member, wanted_type),) = of_type.items()
    found = [
        each
        for each in await _all(place, kind)
        if source_uri in (None, each["source"]["source_uri"])
        and wanted_type in (None, each[type_member])
        and _is_between(each, created_after, created_before)
    ]
    found.sort(
        key=lambda each: each[f"{kind.name}_name" if sort_by == "Name" else "creation_time"],
        reverse=sort_order != "Ascending",
    )
    question = {
        "kind": kind.name,
        "uri": source_uri,
        "type": wanted_type,
        "after": created_after,
        "before": created_before,
        "by": sort_by,
        "order": sort_order,
    }
    page, token = paged(question, found, max_results or 10, next_token)
    return {kind.plural: page, "next_token": token}


async def add_association(
    place: Place, *, source_arn: str, destination_arn: str, association_type: str | None
) -> dict[str, Any]:
    """Associate one with another. What they are is not looked at: they may be of another account."""
    ends = {"source_arn": source_arn, "destination_arn": destination_arn}
    document = {**ends, "association_type": association_type, "creation_time": now()}
    await place.in_thread(place.disk.put, ASSOCIATION, f"{source_arn} {destination_arn}", document)
    return ends


async def delete_association(place: Place, *, source_arn: str, destination_arn: str) -> dict[str, Any]:
    """Forget an association. Raises ResourceNotFound."""
    name = f"{source_arn} {destination_arn}"
    if await place.in_thread(place.disk.get, ASSOCIATION, name) is None:
        raise ResourceNotFound(f"{source_arn} is not associated with {destination_arn}")
    await place.in_thread(place.disk.remove, ASSOCIATION, name)
    return {"source_arn": source_arn, "destination_arn": destination_arn}


async def list_associations(
    place: Place,
    *,
    source_arn: str | None,
    destination_arn: str | None,
    source_type: str | None,
    destination_type: str | None,
    association_type: str | None,
    created_after: int | None,
    created_before: int | None,
    sort_by: str | None,
    sort_order: str | None,
    next_token: str | None,
    max_results: int | None,
) -> dict[str, Any]:
    """Associations that fit. Raises ValidationException."""
    wanted = {
        "source_arn": source_arn,
        "destination_arn": destination_arn,
        "source_type": source_type,
        "destination_type": destination_type,
        "association_type": association_type,
    }
    known = await _vertices(place)
    found = [
        each
        for each in [_named(known, edge) for edge in await _edges(place)]
        if all(value in (None, each[name]) for name, value in wanted.items())
        and _is_between(each, created_after, created_before)
    ]
    by = {"SourceArn": "source_arn", "DestinationArn": "destination_arn", "SourceType": "source_type"}
    key = by.get(sort_by or "", "destination_type" if sort_by == "DestinationType" else "creation_time")
    found.sort(key=lambda each: each[key] or "", reverse=sort_order != "Ascending")
    question = {**wanted, "after": created_after, "before": created_before, "by": sort_by, "order": sort_order}
    page, token = paged(question, found, max_results or 10, next_token)
    return {"association_summaries": page, "next_token": token}


async def _edges(place: Place) -> list[dict[str, Any]]:
    return [document for _, document in await place.in_thread(place.disk.documents, ASSOCIATION)]


async def _vertices(place: Place) -> dict[str, tuple[str | None, str | None]]:
    """Name and type of each by its ARN."""
    return {
        each[kind.arn]: (each.get(f"{kind.name}_name"), each.get(f"{kind.name}_type"))
        for kind in KINDS
        for each in await _all(place, kind)
    }


def _named(known: dict[str, tuple[str | None, str | None]], edge: dict[str, Any]) -> dict[str, Any]:
    source_name, source_type = known.get(edge["source_arn"], (None, None))
    destination_name, destination_type = known.get(edge["destination_arn"], (None, None))
    return {
        **edge,
        "source_name": source_name,
        "source_type": source_type,
        "destination_name": destination_name,
        "destination_type": destination_type,
    }


def _own_id(kind: Kind, members: dict[str, Any]) -> str:
    if kind is not ARTIFACT:
        return str(members[f"{kind.name}_name"])
    said = f"{members['artifact_type']} {members['source']['source_uri']}"
    return sha256(said.encode()).hexdigest()[:32]


async def _all(place: Place, kind: Kind) -> list[dict[str, Any]]:
    return [document for _, document in await place.in_thread(place.disk.documents, kind.name)]


async def _read(place: Place, kind: Kind, arn: str) -> dict[str, Any] | None:
    return await place.in_thread(place.disk.get, kind.name, arn)


async def _find(place: Place, kind: Kind, name: str) -> dict[str, Any]:
    """One by its ARN or name. Raises ResourceNotFound."""
    arn = name if name.startswith("arn:") else place.arn(f"{kind.name}/{name}")
    found = await _read(place, kind, arn)
    if found is None:
        raise ResourceNotFound(f"There is no {kind.name} {name}")
    return found


def _is_between(each: dict[str, Any], after: int | None, before: int | None) -> bool:
    created_at: int = each["creation_time"]
    return (after is None or created_at > after) and (before is None or created_at < before)
