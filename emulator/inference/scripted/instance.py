"""An instance of a JSON schema: a search through plain candidates, each checked by `jsonschema`.

The search is small and bounded. What it yields is valid; that it finds nothing does not prove that there is nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from emulator.inference.scripted.candidates import merged, numbered, numbers, round_robin, strings
from emulator.inference.scripted.wire import dump_text

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_DEPTHS = (5, 10, 20, 40)  # tried in turn: a schema that refers to itself gives the shallowest instance
_STEPS = 5000  # taken in one depth (a step costs some 20 µs), before it is given up
_TRIES = 200  # candidates of one part of the schema
_LONGEST = 2000  # items of an array

_ALL_TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")

#: A schema's type if it does not say: by the words it uses.
_IMPLIED = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "minProperties", "propertyNames"},
    "array": {"items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}


class Unsatisfiable(Exception):
    """No value was found for a schema, or it is no JSON schema; the message says which."""


@lru_cache(maxsize=128)  # the requests of a rollout bring the same schemas again and again
def instance_text(schema: str) -> str:
    """A value for a schema, both as JSON text. Raises Unsatisfiable."""
    try:
        return json.dumps(instance(json.loads(schema)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, ArithmeticError) as error:  # numbers beyond a float, in the schema or in what comes of it
        raise Unsatisfiable(f"it has numbers that cannot be reckoned with: {error}") from None


def instance(schema: Any) -> Any:
    """The plainest value found that satisfies the schema (JSON Schema 2020-12 unless `$schema` says otherwise).

    Raises Unsatisfiable, or RecursionError where the schema is too deep for Python. Nothing is fetched: references
    lead to places in the schema itself.
    """
    # 0.15 s to import; only requests that want a schema satisfied pay for it.
    from jsonschema.exceptions import SchemaError, UnknownType
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise Unsatisfiable("it is not a JSON schema, but another kind of value")
    if not isinstance(schema.get("$schema", ""), str):
        raise Unsatisfiable("its $schema is not a string")
    draft = validator_for(schema, default=Draft202012Validator)
    try:
        draft.check_schema(schema)
        validator = draft(schema, registry=EMPTY_REGISTRY, format_checker=draft.FORMAT_CHECKER)
        for depth in _DEPTHS:
            for value in _Search(schema, validator).values(schema, depth):
                return value
    except SchemaError as error:
        raise Unsatisfiable(f"it is not a valid JSON schema: {error.message}") from None
    except Unresolvable as error:
        raise Unsatisfiable(f"it refers to {error.ref!r}, which is not in it") from None
    except re.error as error:
        raise Unsatisfiable(f"its pattern is not a regular expression: {error}") from None
    except (UnknownType, TypeError, AttributeError) as error:
        # All else was checked, but a reference may lead to a place that is no schema.
        raise Unsatisfiable(f"it cannot be understood ({type(error).__name__})") from error
    raise Unsatisfiable("no value was found for it")


class _Search:
    """The search for one schema, to one depth."""

    def __init__(self, root: Any, validator: Validator) -> None:
        from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

        self._validator = validator
        self._resolver = EMPTY_REGISTRY.resolver_with_root(DRAFT202012.create_resource(root))
        self._steps = 0

    def values(self, schema: Any, depth: int) -> Iterator[Any]:
        """Different values that satisfy the schema (a part of the whole one), plainest first."""
        if depth <= 0:
            return
        check = self._validator.evolve(schema=schema)
        seen = set()
        for value in islice(self._candidates(schema, depth), _TRIES):
            self._steps += 1
            key = dump_text(value)
            if self._steps > _STEPS:
                return
            if key not in seen and check.is_valid(value):
                seen.add(key)
                yield value

    def _candidates(self, schema: Any, depth: int) -> Iterator[Any]:
        self._steps += 1
        if schema is False or depth <= 0 or self._steps > _STEPS:
            return
        if schema is True:
            schema = {}
        if "default" in schema:
            yield schema["default"]
        yield from schema.get("examples") or ()
        rest = dict(schema)
        for keyword in ("$ref", "anyOf", "oneOf", "allOf", "if"):
            if keyword in rest:
                branches = self._branches(keyword, rest.pop(keyword), rest)
                yield from round_robin(*(self._candidates(branch, depth - 1) for branch in branches))
                return
        if "const" in schema:
            yield schema["const"]
        elif "enum" in schema:
            yield from schema["enum"]
        else:
            yield from round_robin(*(self._of_type(kind, schema, depth) for kind in _types(schema)))

    def _branches(self, keyword: str, value: Any, rest: dict[str, Any]) -> Iterator[Any]:
        """The schemas without `keyword` whose instances may satisfy the schema that has it."""
        if keyword == "$ref":
            yield merged(rest, self._resolver.lookup(value).contents)
        elif keyword == "allOf":
            whole: Any = rest
            for part in value:
                whole = merged(whole, part)
            yield whole
        elif keyword == "if":
            then, otherwise = rest.pop("then", True), rest.pop("else", True)
            yield merged(merged(rest, value), then)
            yield merged(rest, otherwise)
        else:
            yield from (merged(rest, branch) for branch in value)

    def _of_type(self, kind: str, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        if kind == "object":
            return self._objects(schema, depth)
        if kind == "array":
            return self._arrays(schema, depth)
        if kind == "string":
            return strings(schema)
        if kind in ("integer", "number"):
            return numbers(schema, whole=kind == "integer")
        return iter((True, False) if kind == "boolean" else (None,))

    def _objects(self, schema: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        properties = schema.get("properties") or {}
        needed = {*(schema.get("required") or ())}
        for name, others in (schema.get("dependentRequired") or {}).items():
            if name in needed:
                needed.update(others)
        # In the order of `properties`, as a model would write them.
        required = [name for name in properties if name in needed] + sorted(needed - properties.keys())
        optional = [name for name in properties if name not in needed]
        first: dict[str, list[Any]] = {}

        def filled(names: list[str]) -> dict[str, Any]:
            for name in names:
                if name not in first:
                    first[name] = list(islice(self.values(_of_property(schema, name), depth - 1), 1))
            return {name: first[name][0] for name in names if first[name]}

        plain = filled(required)
        if len(plain) < len(required):
            return
        yield plain
        full = filled(required + optional)
        yield full
        yield from (filled([*required, name]) for name in optional)
        missing = schema.get("minProperties", 0) - len(full)
        if 0 < missing < _LONGEST:
            names = (name for name in self._free_names(schema, depth) if name not in full)
            yield filled([*full, *islice(names, missing)])
        for name in full:
            for value in islice(self.values(_of_property(schema, name), depth - 1), 1, 50):
                yield {**(plain if name in plain else full), name: value}

    def _free_names(self, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        patterns = [strings({"pattern": pattern}) for pattern in schema.get("patternProperties") or ()]
        rule = schema.get("propertyNames", True)
        named = (
            self.values({"type": "string", "allOf": [rule]}, depth - 1) if isinstance(rule, dict) else numbered("key")
        )
        return round_robin(named, *patterns)

    def _arrays(self, schema: Mapping[str, Any], depth: int) -> Iterator[list[Any]]:
        items = schema.get("items", True)
        prefix = items if isinstance(items, list) else schema.get("prefixItems") or []
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        least, most = schema.get("minItems", 0), schema.get("maxItems", _LONGEST)
        # The items after the prefix that `contains` asks for.
        contained = schema.get("minContains", 1) if "contains" in schema else 0
        wanted = {"allOf": [rest, schema.get("contains", True)]}
        shortest = max(least, len(prefix) + contained if contained else 0)
        for length in dict.fromkeys((max(shortest, min(len(prefix), most)), shortest, *range(least, least + 4))):
            if length > min(most, _LONGEST):
                continue
            parts = [*prefix, *[wanted] * contained]
            parts = [*parts[:length], *[rest] * (length - len(parts))]
            value = self._filled_array(parts, bool(schema.get("uniqueItems")), depth)
            if value is not None:
                yield value
                if length:
                    others = islice(self.values(parts[0], depth - 1), 1, 50)
                    yield from ([other, *value[1:]] for other in others)

    def _filled_array(self, parts: list[Any], unique: bool, depth: int) -> list[Any] | None:
        """One value a part, each different if they must be unique; parts that are the same object share a search."""
        searches: dict[int, Iterator[Any]] = {}
        last: dict[int, Any] = {}
        used: set[str] = set()
        chosen = []
        for part in parts:
            search = searches.setdefault(id(part), self.values(part, depth - 1))
            while unique or id(part) not in last:
                value = next(search, _NOTHING)
                if value is _NOTHING:
                    return None
                last[id(part)] = value
                if dump_text(value) not in used:
                    break
            chosen.append(last[id(part)])
            used.add(dump_text(chosen[-1]))
        return chosen


_NOTHING = object()


def _types(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return [kind]
    if kind is not None:
        return sorted(kind, key=lambda name: name == "null")  # null comes last: it says least
    return [name for name, words in _IMPLIED.items() if words & schema.keys()] or [*_ALL_TYPES]


def _of_property(schema: Mapping[str, Any], name: str) -> Any:
    """The schema of a member: all the words of an object's schema that apply to it."""
    parts = [schema["properties"][name]] if name in (schema.get("properties") or {}) else []
    patterns = schema.get("patternProperties") or {}
    parts += [part for pattern, part in patterns.items() if re.search(pattern, name)]
    if not parts:
        return schema.get("additionalProperties", True)
    return parts[0] if len(parts) == 1 else {"allOf": parts}
