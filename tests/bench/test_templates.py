"""Requests have the size that is said, and stay whole when their places are filled."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from bench.contenders import CONTENDERS, LARGE, SMALL, Contender
from bench.figures.rollouts import complete, first_sample, reward
from bench.figures.stored import STEP, TURNS, conversation
from bench.templates import CONNECTION, CYCLE, TRAJECTORY, chat_body, http_request


def taken_apart(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """The request line, the header fields, and the body."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return line, {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}, body


def test_places_are_as_long_as_the_digits_that_replace_them() -> None:
    assert {len(place) for place in (CONNECTION, CYCLE, TRAJECTORY)} == {12}


@pytest.mark.parametrize("size", [SMALL, LARGE, 1000, 4097])
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_has_exactly_so_many_bytes_and_is_valid(size: int, stream: bool) -> None:
    body = chat_body(size, stream=stream)
    assert len(body) == size
    document = json.loads(body)
    assert document.get("stream", False) is stream
    assert [message["role"] for message in document["messages"]][:1] == ["system"]
    assert body.rstrip() == body


def test_a_chat_that_would_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="100 bytes"):
        chat_body(100)


def test_what_differs_between_large_bodies_stands_near_their_end() -> None:
    assert chat_body(LARGE).index(CYCLE.encode()) > LARGE - 300


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=lambda each: each.name)
def test_every_contender_is_sent_a_whole_request(contender: Contender) -> None:
    requests = [contender.sample(), contender.sample(LARGE)]
    if contender.stream_path:
        requests.append(contender.stream())
    for request in requests:
        line, headers, body = taken_apart(request)
        assert line.startswith("POST /")
        assert line.endswith(" HTTP/1.1")
        assert int(headers["content-length"]) == len(body)
        if contender.body is None:
            assert len(body) in (SMALL, LARGE)


@pytest.mark.parametrize("request_bytes", [complete(), reward(), first_sample(CONTENDERS["normal"])])
def test_requests_of_one_cycle_name_its_trajectory(request_bytes: bytes) -> None:
    _, headers, body = taken_apart(request_bytes)
    assert int(headers["content-length"]) == len(body)
    assert f"sealed-{CYCLE}".encode() in request_bytes


def test_a_get_has_no_body() -> None:
    assert http_request("GET", "/health", {}) == b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(("step", "last"), [(STEP // TURNS, STEP), (STEP, STEP * TURNS)])
def test_the_conversation_of_a_rollout_grows_as_is_said(step: int, last: int) -> None:
    bodies = conversation(TURNS, step)
    assert len(bodies) == TURNS
    assert 0.8 * last < len(bodies[-1]) < 1.25 * last
    for earlier, later in pairwise(bodies):
        assert later.startswith(earlier[:-2])
