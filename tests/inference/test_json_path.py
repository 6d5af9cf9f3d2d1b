"""JSON paths: what they find, and which texts are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.inference.scripted.json_path import BadPath, parse

DOCUMENT = {
    "a": {"b": [1, {"c": 2}], "c": 3},
    "the name": "x",
    "it's": "y",
    'a "b"': "z",
    "größe": 4,
    "dash-ed": 5,
    "*": 6,
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", [DOCUMENT]),
        ("$.a.c", [3]),
        ("$.a.b[0]", [1]),
        ("$.a.b[-1].c", [2]),
        ("$.a.b[5]", []),
        ("$.a.b.c", []),
        ("$.a[0]", []),
        ("$['a'][\"c\"]", [3]),
        ("$['the name']", ["x"]),
        (r"$['it\'s']", ["y"]),
        (r'$["a \"b\""]', ["z"]),
        ("$.größe", [4]),
        ("$.dash-ed", [5]),
        ("$['*']", [6]),
        ("$.a.b[*]", [1, {"c": 2}]),
        ("$.a.*", [[1, {"c": 2}], 3]),
        ("$.a[ 'b' ][ 0 ]", [1]),
        ("$..c", [3, 2]),
        ("$..['c']", [3, 2]),
        ("$..b[0]", [1]),
        ("$..[1].c", [2]),
    ],
)
def test_a_path_finds(path: str, found: list[Any]) -> None:
    assert sorted(map(str, parse(path).find(DOCUMENT))) == sorted(map(str, found))


@pytest.mark.parametrize(
    "path",
    [
        *("", "a", ".a", "$a", "$.", "$..", "$.a.", "$.a b", "$[a]", "$[]", "$[01]", "$['a]", "$.['a']", "$...a"),
        *("$.a[0", "$[0:1]", "$[?(@.a)]", "$.0", "$[1.5]", "$*", "$[9999999999999999]"),
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        parse(path)


documents = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
)


@given(st.text("$.[]'\"*ab01-\\ "), documents)
def test_any_text_is_a_path_or_refused(text: str, document: Any) -> None:
    try:
        path = parse("$" + text)
    except BadPath:
        return
    list(path.find(document))


@given(documents)
def test_every_value_has_a_path_of_names_and_indexes(document: Any) -> None:
    def check(path: str, value: Any) -> None:
        assert list(parse(path).find(document)) == [value]
        if isinstance(value, dict):
            for name, part in value.items():
                quoted = name.replace("\\", "\\\\").replace("'", "\\'")
                check(f"{path}['{quoted}']", part)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                check(f"{path}[{index}]", part)

    check("$", document)
