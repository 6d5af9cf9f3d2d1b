"""Which requests are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.inference.cassette.canonical import canonical, field_path

numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(texts, values, max_size=5)


def spelled(value: Any, draw: Callable[..., Any]) -> str:
    """A JSON text of a value, in one of its many spellings."""
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    if isinstance(value, dict):
        entries = draw(st.permutations(list(value.items())))
        inside = f"{space},{space}".join(
            f"{spelled(key, draw)}{space}:{space}{spelled(each, draw)}" for key, each in entries
        )
        return f"{{{space}{inside}{space}}}"
    if isinstance(value, list):
        return f"[{space}{f'{space},{space}'.join(spelled(each, draw) for each in value)}{space}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=draw(st.booleans()))
    if type(value) is int:
        return (
            draw(st.sampled_from([str(value), f"{value}.0", f"{value}.00e0", f"{value}E+0"]))
            if exact(value)
            else str(value)
        )
    return json.dumps(value)


def exact(value: int) -> bool:
    """Whether a float can be that number, so that 1.0 may stand for 1."""
    return int(float(value)) == value


def without_floats(value: Any) -> Any:
    """A value in which 1.0 is 1, as it is in JSON."""
    if isinstance(value, dict):
        return {key: without_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_floats(each) for each in value]
    if isinstance(value, bool):
        return ("bool", value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


@given(bodies, st.data())
def test_the_spelling_of_a_request_does_not_matter(body: dict[str, Any], data: st.DataObject) -> None:
    one, other = spelled(body, data.draw), spelled(body, data.draw)
    assert canonical(one.encode()) == canonical(other.encode())


@given(bodies, bodies)
def test_requests_of_other_values_are_others(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = canonical(json.dumps(one).encode()) == canonical(json.dumps(other).encode())
    assert same == (without_floats(one) == without_floats(other))


@given(st.binary())
def test_any_bytes_are_a_request(body: bytes) -> None:
    assert canonical(body) == canonical(body)


def test_bytes_that_are_no_json_are_the_same_only_as_themselves() -> None:
    bodies = (b"", b"{", b"{ ", b"\xff", b"\xc3\xbf", b'"{"', b"[" * 100_000)
    assert len({canonical(body) for body in bodies}) == len(bodies)


def test_true_is_not_one() -> None:
    assert canonical(b'{"n": true}') != canonical(b'{"n": 1}')


@pytest.mark.parametrize(
    ("field", "left"),
    [
        ("user", {"messages": [{"id": 1, "n": 2}, {"id": 3}], "meta": {"a": 1, "b": 2}}),
        ("messages.*.id", {"user": "u", "messages": [{"n": 2}, {}], "meta": {"a": 1, "b": 2}}),
        ("meta.a", {"user": "u", "messages": [{"id": 1, "n": 2}, {"id": 3}], "meta": {"b": 2}}),
        ("meta.*", {"user": "u", "messages": [{"id": 1, "n": 2}, {"id": 3}], "meta": {}}),
        ("messages.*", {"user": "u", "messages": [], "meta": {"a": 1, "b": 2}}),
        ("user.name", {"user": "u", "messages": [{"id": 1, "n": 2}, {"id": 3}], "meta": {"a": 1, "b": 2}}),
    ],
)
def test_an_ignored_field_is_as_if_it_were_not_there(field: str, left: dict[str, Any]) -> None:
    body = {"user": "u", "messages": [{"id": 1, "n": 2}, {"id": 3}], "meta": {"a": 1, "b": 2}}
    found = canonical(json.dumps(body).encode(), [field_path(field)])
    assert found == canonical(json.dumps(left).encode())


@pytest.mark.parametrize("text", ["", ".", "a..b", "a."])
def test_a_field_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no field"):
        field_path(text)
