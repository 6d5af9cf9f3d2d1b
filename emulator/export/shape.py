"""What the rows of a format look like, said once: their JSON Schema and their columns in parquet are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from emulator.documents import parse_time, to_json

if TYPE_CHECKING:
    import pyarrow as pa

#: `json`: any JSON value; in parquet, its text, of the logical type JSON. `time`: RFC 3339; in parquet, a timestamp.
Kind = Literal["text", "integer", "number", "boolean", "time", "json"]


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    of: Kind | Many | Mapping[str, Field]
    holes: bool = False  #: whether an entry may be null


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a member of an object."""

    kind: Kind | Many | Mapping[str, Field]
    about: str
    nullable: bool = False


#: The columns of a row, in their order.
Shape = Mapping[str, Field]

_JSON_TYPES: Mapping[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "json": {},
}


def json_schema(name: str, about: str, shape: Shape) -> dict[str, Any]:
    """The JSON Schema of a format's rows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:job-runtime-local:export:{name}",
        "title": name,
        "description": about,
        **_object_schema(shape),
    }


def _object_schema(shape: Shape) -> dict[str, Any]:
    properties = {name: {"description": field.about, **_field_schema(field)} for name, field in shape.items()}
    return {"type": "object", "properties": properties, "required": list(shape), "additionalProperties": False}


def _field_schema(field: Field) -> dict[str, Any]:
    schema = _schema(field.kind)
    if field.nullable and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


def _schema(kind: Kind | Many | Shape) -> dict[str, Any]:
    if isinstance(kind, str):
        return dict(_JSON_TYPES[kind])
    if isinstance(kind, Many):
        items = _schema(kind.of)
        if kind.holes:
            items["type"] = [items["type"], "null"]
        return {"type": "array", "items": items}
    return _object_schema(kind)


def arrow_schema(shape: Shape, metadata: Mapping[str, str]) -> pa.Schema:
    """The columns in parquet."""
    import pyarrow as pa

    return pa.schema(_arrow_fields(shape, pa.json_()), dict(metadata))


def stored_schema(shape: Shape) -> pa.Schema:
    """The same with JSON as text, from which pyarrow can make columns of Python's objects; they are cast then."""
    import pyarrow as pa

    return pa.schema(_arrow_fields(shape, pa.string()))


def _arrow_fields(shape: Shape, json_type: pa.DataType) -> list[pa.Field]:
    import pyarrow as pa

    return [pa.field(name, _arrow_type(field.kind, json_type)) for name, field in shape.items()]


def _arrow_type(kind: Kind | Many | Shape, json_type: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kind, Many):
        return pa.list_(_arrow_type(kind.of, json_type))
    if isinstance(kind, Mapping):
        return pa.struct(_arrow_fields(kind, json_type))
    if kind == "json":
        return json_type
    if kind == "time":
        return pa.timestamp("us", tz="UTC")
    return {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
    }[kind]


def arrow_row(row: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """A row as pyarrow takes it: JSON as text, times as microseconds."""
    return {name: _arrow_value(row[name], field.kind) for name, field in shape.items()}


def _arrow_value(value: Any, kind: Kind | Many | Shape) -> Any:
    if value is None:
        return None
    if kind == "json":
        return to_json(value)
    if kind == "time":
        return parse_time(value)
    if isinstance(kind, Many):
        plain = isinstance(kind.of, str) and kind.of not in ("json", "time")
        return value if plain else [_arrow_value(each, kind.of) for each in value]
    if isinstance(kind, Mapping):
        return arrow_row(value, kind)
    return value
