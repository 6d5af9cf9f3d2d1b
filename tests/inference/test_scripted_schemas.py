"""The instances that the scripted model server makes for JSON schemas."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from emulator.inference.scripted.instance import Unsatisfiable, instance

# The first example imports jsonschema; how long a search takes at most is a test of its own.
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Schema = dict[str, Any]


def check(schema: Schema, value: object) -> None:
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def without_none(**words: Any) -> Schema:
    return {word: value for word, value in words.items() if value is not None}


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    low = draw(st.integers(-1000, 1000))
    width = draw(st.integers(1, 1000))
    bound = draw(st.sampled_from(["minimum", "exclusiveMinimum"]))
    if draw(st.booleans()):
        return {"type": "integer", bound: low, "maximum": low + width, "multipleOf": draw(st.integers(1, width))}
    fraction = width / 1000
    return {"type": "number", bound: low * 0.37, "exclusiveMaximum": low * 0.37 + fraction}


@st.composite
def strings(draw: st.DrawFn) -> Schema:
    least = draw(st.integers(0, 40))
    most = draw(st.none() | st.integers(least, 60))
    return without_none(type="string", minLength=least, maxLength=most)


PATTERNS = [
    *(r"^[a-z]+$", r"^\d{4}-\d{2}$", r"^(red|green|blue)$", r"^[A-Z][a-z]*( [A-Z][a-z]*)*$", r"^#[0-9a-fA-F]{6}$"),
    *(r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", r"\w+", r"^$", r"^(?:a|b)?c{2,3}\.$", r"^[\w.-]+$", r"^\+?[1-9]\d{1,14}$"),
    *(r"^v(?P<major>\d+)\.(\d+)$", r"^.{3,5}$", r"[^\d]", r"^\x41\u0042\t$", r"^a*?b+?$", r"^[]x]$", r"^[a\-z]-[+-.]$"),
]
FORMATS = ["date-time", "date", "time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration", "regex", "?"]

plain = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5)
leaves: st.SearchStrategy[Schema] = (
    numbers()
    | strings()
    | st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern})
    | st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name})
    | st.sampled_from(["boolean", "null", "object", "array", "string"]).map(lambda kind: {"type": kind})
    | st.lists(plain, min_size=1, max_size=4, unique_by=repr).map(lambda values: {"enum": values})
    | plain.map(lambda value: {"const": value})
    | st.just({"type": ["null", "integer"], "nullable": True})
    | st.just({})
)


@st.composite
def objects(draw: st.DrawFn, parts: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(st.sampled_from("abcdé"), parts, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    schema = {"type": "object", "properties": properties, "required": required}
    if draw(st.booleans()):
        return {**schema, "additionalProperties": False, "minProperties": draw(st.integers(0, len(properties)))}
    return {**schema, "additionalProperties": draw(parts), "minProperties": draw(st.integers(0, 6))}


@st.composite
def arrays(draw: st.DrawFn, parts: st.SearchStrategy[Schema]) -> Schema:
    least = draw(st.integers(0, 4))
    most = draw(st.none() | st.integers(least, 6))
    if draw(st.booleans()):
        prefix = draw(st.lists(parts, min_size=1, max_size=3))
        return without_none(type="array", prefixItems=prefix, items=draw(parts), minItems=least, maxItems=most)
    return without_none(type="array", items=draw(parts), minItems=least, maxItems=most)


def compounds(parts: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return (
        objects(parts)
        | arrays(parts)
        | st.lists(parts, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})
        | parts.map(lambda part: {"oneOf": [part, False]})
        | parts.map(lambda part: {"allOf": [part, {"description": "the same"}, True]})
    )


schemas = st.recursive(leaves, compounds, max_leaves=8)


@quick
@given(schemas)
def test_an_instance_satisfies_its_schema(schema: Schema) -> None:
    check(schema, instance(schema))


@quick
@given(schemas, schemas)
def test_references_are_followed(one: Schema, two: Schema) -> None:
    names = {"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}
    schema = {
        "$defs": {"one": one, "two": two, "": True},
        "type": "object",
        "properties": {"a": names[0], "b": {"type": "array", "items": names[1], "minItems": 1}},
        "required": ["a", "b"],
    }
    check(schema, instance(schema))


@quick
@given(schemas, schemas)
def test_what_comes_out_is_valid_or_nothing_comes_out(one: Schema, two: Schema) -> None:
    schema = {"allOf": [one, two], "not": {"const": 0}}
    try:
        value = instance(schema)
    except Unsatisfiable:
        return
    check(schema, value)


@quick
@given(
    st.integers(1, 20), st.sampled_from([{"type": "integer"}, {"type": "string"}, {"type": "string", "maxLength": 1}])
)
def test_unique_items_differ(count: int, items: Schema) -> None:
    schema = {"type": "array", "items": items, "minItems": count, "uniqueItems": True}
    value = instance(schema)
    check(schema, value)
    assert len(value) == count


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "string", "default": 3, "examples": [4, "y"]}, "y"),
        ({"type": ["null", "string"]}, "scripted"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}], "default": 7}, 7),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"not": {"type": "string"}}, 1),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 0.5),
        ({"type": "number", "multipleOf": 0.1, "minimum": 0.25, "maximum": 0.45}, 0.4),
        ({"type": "integer", "exclusiveMinimum": 10**400}, 10**400 + 1),
        ({"type": "array", "contains": {"const": 5}, "minContains": 2, "items": {"type": "integer"}}, [5, 5]),
        ({"required": ["a"], "dependentRequired": {"a": ["b"]}}, {"a": "scripted", "b": "scripted"}),
        ({"minProperties": 2, "propertyNames": {"pattern": "^[A-Z]+$"}}, {"A": "scripted", "AA": "scripted"}),
        ({"patternProperties": {"^n_": {"type": "integer"}}, "required": ["n_1"]}, {"n_1": 1}),
        (
            {"if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["x"]}, "required": ["k"]},
            {"k": "a", "x": "scripted"},
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "array",
                "items": [{"type": "string"}, {"type": "integer"}],
                "minItems": 2,
            },
            ["scripted", 1],
        ),
        ({"$schema": "https://unknown.example/", "type": "null"}, None),
    ],
)
def test_the_plainest_value_is_preferred(schema: Schema, value: object) -> None:
    assert instance(schema) == value


def test_a_schema_that_refers_to_itself_has_a_shallow_instance() -> None:
    node = {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "required": ["value", "children", "next"],
    }
    schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    assert instance(schema) == {"value": 1, "children": [], "next": None}


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "string", "enum": [1, 2]},
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"$ref": "#/description", "description": "no schema"},
        {"$ref": "#/examples/0", "examples": [{"type": "strng"}]},
        {"$ref": "https://example.com/schema.json"},
        {"type": "object", "required": ["a", "b"], "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
        {"type": "strng"},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "^(?!.).$"},
        {"type": "string", "format": "uuid", "minLength": 50},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "pattern": "^a{1000000}$"},
        {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"},
        {"$schema": 7},
        "a string",
        None,
    ],
)
def test_a_schema_that_cannot_be_satisfied_is_refused_soon(schema: Any) -> None:
    begun = time.process_time()
    with pytest.raises(Unsatisfiable):
        instance(schema)
    assert time.process_time() - begun < 5
