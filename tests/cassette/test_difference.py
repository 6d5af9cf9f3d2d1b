"""A request that is not on the cassette is compared with the one that is most like it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from emulator.inference.cassette.canonical import Question, question
from emulator.inference.cassette.difference import describe, differences, nearest


def asking(*said: str, path: str = "/v1/chat/completions", **more: Any) -> Question:
    messages = [{"role": "user", "content": each} for each in said]
    return question("POST", path, json.dumps({"model": "m", "messages": messages, **more}).encode())


def told(asked: Question, recorded: Question, length: int = 80) -> str:
    return describe(differences(asked.body, recorded.body), length)


def test_the_nearest_shares_the_longest_conversation() -> None:
    recorded = [asking("a"), asking("a", "b"), asking("a", "b", "c"), asking("x", "b", "c")]
    assert nearest(asking("a", "b", "d"), recorded) == recorded[2]


def test_the_nearest_of_equally_long_ones_begins_and_ends_alike() -> None:
    recorded = [asking(f"What is {number} * 7?") for number in (1, 62, 612, 7)]
    assert nearest(asking("What is 613 * 7?"), recorded) == recorded[2]


def test_another_path_is_never_near() -> None:
    assert nearest(asking("a"), [asking("a", path="/v1/completions")]) is None


def test_what_was_asked_is_not_kept() -> None:
    recorded = [asking("a")]
    nearest(asking("b"), recorded)
    tracemalloc.start()
    try:
        for number in range(20):
            assert nearest(asking(f"{number}" * 100_000), recorded) == recorded[0]
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_each_field_that_differs_is_named_with_both_values() -> None:
    assert told(asking("a", temperature=1), asking("b", temperature=0.5)) == (
        'messages[0].content: asked "a", recorded "b"; temperature: asked 1, recorded 0.5'
    )


def test_what_one_of_them_lacks_is_named() -> None:
    assert told(asking("a", stream=True), asking("a")) == "stream: asked true, recorded nothing"
    assert told(asking("a"), asking("a", "b")) == (
        'messages[1]: asked nothing, recorded {"content": "b", "role": "user"}'
    )


def test_long_texts_are_shown_where_they_begin_to_differ() -> None:
    same = "The same. " * 100
    asked, recorded = asking(f"{same}Today is Monday. {same}"), asking(f"{same}Today is Friday. {same}")
    assert told(asked, recorded, 40) == (
        'messages[0].content: asked …" The same. Today is Monday. The same. Th"…, '
        'recorded …" The same. Today is Friday. The same. Th"…'
    )


def test_many_differences_are_counted() -> None:
    assert told(asking(*"abcdef"), asking(*"uvwxyz")).endswith("; and 3 more")


@pytest.mark.parametrize("body", [b"", b"{", b'""', b"[1]", b'{"messages": 1}', b"\xff", b"null"])
def test_bodies_of_any_kind_are_compared(body: bytes) -> None:
    odd = question("POST", "/v1/chat/completions", body)
    assert nearest(odd, [asking("a")]) == asking("a")
    assert told(odd, asking("a"))
    assert told(asking("a"), odd)


def test_deep_bodies_are_compared() -> None:
    deep = asking("a", deep=json.loads("[" * 400 + "]" * 400))
    assert told(deep, asking("a"))
    assert told(deep, asking("a", deep=json.loads("[" * 400 + "1" + "]" * 400)), 40)
