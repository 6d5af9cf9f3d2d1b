"""Requests that are stored without what they share come back byte for byte, whatever happens in between."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emulator.store.prefixes import (
    LEAST_SHARED,
    LONGEST_CHAIN,
    LastRequests,
    MissingPrefix,
    Stored,
    restore,
    shared_length,
)

# What both begin with


@given(st.binary(max_size=600), st.binary(max_size=40), st.binary(max_size=40))
@example(b"", b"", b"")
@example(b"x" * 600, b"", b"")
@example(b"x" * 129, b"a", b"b")
def test_what_two_requests_share_is_found_or_all_but_a_few_bytes_of_it(prefix: bytes, one: bytes, other: bytes) -> None:
    one, other = prefix + one, prefix + other
    length = shared_length(one, other)
    assert one[:length] == other[:length]
    whole = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert whole - 15 <= length <= whole


#: Bodies as agents send them: each takes what another one began with, and adds something.
@st.composite
def bodies(draw: st.DrawFn, least: int = 1, most: int = 12) -> list[bytes]:
    sent = [b""]
    for _ in range(draw(st.integers(least, most))):
        begin = draw(st.sampled_from(sent))
        kept = draw(st.sampled_from([len(begin), len(begin), len(begin) // 2, 70, 0]))
        sent.append(begin[:kept] + draw(st.binary(min_size=1, max_size=4)) * draw(st.sampled_from([0, 1, 30, 200])))
    return sent[1:]


quick = settings(deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(bodies(most=40), st.data(), st.sampled_from([100, 1000, 10_000, 1 << 20]))
def test_whatever_is_kept_in_memory_of_them_all_requests_can_be_restored(
    sent: list[bytes], data: st.DataObject, kept_bytes: int
) -> None:
    last_requests = LastRequests(kept_bytes)
    shortened: dict[int, list[Stored]] = {}
    expected: dict[int, dict[int, bytes]] = {}
    for number, body in enumerate(sent):
        trajectory = data.draw(st.integers(0, 2))
        shortened.setdefault(trajectory, []).append(last_requests.shorten(trajectory, number, body))
        expected.setdefault(trajectory, {})[number] = body
        if data.draw(st.integers(0, 9)) == 0:
            last_requests.clear()
    assert {trajectory: restore(each) for trajectory, each in shortened.items()} == expected


def test_a_request_is_never_far_from_a_whole_one() -> None:
    last_requests, body, since_whole = LastRequests(), b"x" * 1000, 0
    for number in range(5 * LONGEST_CHAIN):
        body += b"y"
        it = last_requests.shorten(1, number, body)
        since_whole = 0 if it.base is None else since_whole + 1
        assert since_whole <= LONGEST_CHAIN
        assert it.base is None or len(it.request) <= 16


def test_a_small_request_in_between_does_not_end_the_sharing() -> None:
    last_requests, body = LastRequests(), b"x" * 1000
    last_requests.shorten(1, 0, body)
    last_requests.shorten(1, 1, b"{}")
    assert last_requests.shorten(1, 2, body + b"y").base == 0


@pytest.mark.parametrize("size", [0, LEAST_SHARED, 1000, 100_000, 3_000_000])
def test_what_is_kept_takes_no_more_memory_than_it_may(size: int) -> None:
    kept_bytes = 2_000_000
    last_requests = LastRequests(kept_bytes)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for trajectory in range(max(30, min(30_000, 20_000_000 // (size + 100)))):
            last_requests.shorten(trajectory, 1000 + trajectory, bytes(size))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1.2 * kept_bytes


@pytest.mark.parametrize("broken", [[Stored(1, 0, 1, b"")], [Stored(0, None, 0, b"abc"), Stored(1, 0, 4, b"")]])
def test_a_request_whose_beginning_is_not_there_is_not_made_up(broken: list[Stored]) -> None:
    with pytest.raises(MissingPrefix, match="turn 1: what its request shares with turn 0"):
        restore(broken)
