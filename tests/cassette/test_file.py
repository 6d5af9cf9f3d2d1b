"""A cassette as a file: what is written comes back, whatever it is; what is wrong is refused with its line."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.inference.cassette.blocks import STYLES, Recorded
from emulator.inference.cassette.canonical import canonical
from emulator.inference.cassette.conversations import Conversations
from emulator.inference.cassette.file import END, HEADER, CassetteError, Recorder, parse_cassette, read_cassette
from emulator.inference.cassette.reading import read_block
from emulator.inference.cassette.tape import Piece, RecordedAnswer
from emulator.inference.cassette.writing import write_block

from .test_canonical import bodies

any_text = st.text() | st.sampled_from(
    ["yes", "1:30", "2026-11-21", "~", "---", "...", "a\nb\n", " a\n\n", "\r\n", "<<", "="]
)
seconds = st.floats(0, 1000).map(lambda value: round(value, 4))
headers = st.fixed_dictionaries({}, optional={"content-type": st.just("application/json"), "retry-after": st.just("5")})
events = any_text.map(lambda text: b"data: " + text.encode("utf-8", "replace") + b"\n\n")
deltas = st.builds(
    lambda text, tool: {"content": text, "tool_calls": [{"index": 0, "function": {"name": text, "arguments": tool}}]},
    any_text,
    any_text | st.none() | st.integers(),
).map(lambda delta: b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode())
json_bodies = st.builds(
    lambda body, style: json.dumps(body, **STYLES[style]).encode(), bodies, st.sampled_from(sorted(STYLES))
)
some_bytes = (
    st.binary(min_size=1) | events | deltas | json_bodies | any_text.map(lambda text: text.encode("utf-8", "replace"))
)
pieces = st.builds(Piece, seconds, some_bytes.filter(bool))
streams = st.builds(
    RecordedAnswer,
    st.integers(200, 599),
    headers,
    seconds,
    st.lists(pieces, max_size=4).map(tuple),
    is_stream=st.just(True),
)
wholes = st.builds(
    RecordedAnswer,
    st.integers(200, 599),
    headers,
    seconds,
    some_bytes.map(lambda body: (Piece(0.0, body),) if body else ()),
    is_stream=st.just(False),
)
recordings = st.builds(
    Recorded,
    st.sampled_from(["POST", "GET"]),
    st.sampled_from(["/v1/chat/completions", "/v1/models"]),
    some_bytes | st.just(b""),
    streams | wholes,
    st.none() | st.text(max_size=5),
    st.none() | st.integers(0, 9),
)


def told(recorded: Recorded) -> tuple[Any, ...]:
    """What has to come back; of a request, what it asks."""
    return (
        recorded.method,
        recorded.path,
        recorded.trajectory,
        recorded.turn,
        canonical(recorded.body),
        recorded.answer,
    )


@settings(deadline=None)
@given(recordings)
def test_a_block_comes_back_as_it_was(recorded: Recorded) -> None:
    written = write_block(recorded, Conversations())
    assert told(read_block(written, Conversations())) == told(recorded)
    assert yaml.safe_load(written.replace("\t", " ")) is not None  # other programs read it too


@settings(max_examples=40, deadline=None)
@given(st.lists(recordings, max_size=3), st.data())
def test_a_file_that_ends_anywhere_holds_what_was_whole(recorded: list[Recorded], data: st.DataObject) -> None:
    written, ends, conversations = HEADER, [len(HEADER)], Conversations()
    for each in recorded:
        written += b"---\n" + write_block(each, conversations).encode() + END
        conversations.add(each)
        ends.append(len(written))
    cut = data.draw(st.integers(len(HEADER), len(written)))
    contents = parse_cassette(written[:cut], Path("x.yaml"))
    whole = sum(end - 1 <= cut for end in ends[1:])  # the last line's end is not needed
    assert [told(entry.recorded) for entry in contents.entries] == [told(each) for each in recorded[:whole]]


def chat(*said: str, turn: int = 0, trajectory: str | None = "t", answer: str = "{}") -> Recorded:
    """A recorded answer to a conversation."""
    messages = [{"role": "user", "content": each} for each in said]
    whole = RecordedAnswer(200, {"content-type": "application/json"}, 0.1, (Piece(0.0, answer.encode()),), False)
    return Recorded(
        "POST", "/v1/chat/completions", json.dumps({"messages": messages}).encode(), whole, trajectory, turn
    )


def recorded_to(path: Path, *recorded: Recorded) -> str:
    """The file that comes of recording."""
    recorder = Recorder(path, ())
    for each in recorded:
        recorder.append(each)
    recorder.close()
    return path.read_text()


def test_a_turn_that_continues_another_holds_only_what_is_new(tmp_path: Path) -> None:
    conversation = [chat(*"abcdef"[: turn + 1], turn=turn) for turn in range(6)]
    written = recorded_to(tmp_path / "c.yaml", *conversation)
    for word in "abcdef":
        assert written.count(f"content: {word}\n") == 1
    contents = read_cassette(tmp_path / "c.yaml")
    assert [told(entry.recorded) for entry in contents.entries] == [told(each) for each in conversation]


def test_only_turns_of_its_own_trajectory_are_continued(tmp_path: Path) -> None:
    rollouts = [chat("a"), chat("a", "b", turn=1, trajectory="other"), chat("b", "a", turn=1), chat("a", "c", turn=2)]
    written = recorded_to(tmp_path / "c.yaml", *rollouts)
    assert written.count("continues: 0") == 1
    found = [told(entry.recorded) for entry in read_cassette(tmp_path / "c.yaml").entries]
    assert sorted(map(repr, found)) == sorted(repr(told(each)) for each in rollouts)


def test_the_order_of_a_file_does_not_depend_on_who_was_answered_first(tmp_path: Path) -> None:
    models = Recorded("GET", "/v1/models", b"", RecordedAnswer(200, {}, 0.1, (), False))
    of_b = [chat("b", trajectory="1"), chat("b", "c", trajectory="1", turn=1)]
    of_a = [chat("a", trajectory="2"), chat("z", trajectory="2", turn=1), chat("a", "c", trajectory="2", turn=2)]
    one = recorded_to(tmp_path / "one.yaml", *of_b, *of_a, models)
    other = recorded_to(tmp_path / "other.yaml", of_a[0], models, of_b[0], of_a[1], of_b[1], of_a[2])
    assert one == other
    order = [entry.recorded.trajectory for entry in read_cassette(tmp_path / "one.yaml").entries]
    assert order == [None, "2", "2", "2", "1", "1"]


def test_what_people_wrote_beside_an_answer_stays_when_more_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    written = recorded_to(path, chat("m"))
    path.write_text(written.replace("answer:\n", "answer: # as of today\n"))
    assert "# as of today" in recorded_to(path, chat("a", trajectory="u"))
    assert [entry.recorded.trajectory for entry in read_cassette(path).entries] == ["u", "t"]


def test_a_file_without_its_last_line_break_is_recorded_to(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for at, more in pairwise(["", "b", "c"]):
        if at or path.exists():
            path.write_text(path.read_text().rstrip())
        recorded_to(path, chat(more, trajectory=more))
    assert [entry.recorded.trajectory for entry in read_cassette(path).entries] == ["b", "c"]


def test_what_a_killed_recorder_left_half_written_is_cut_off_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    whole = recorded_to(path, chat("a"))
    path.write_bytes((whole + whole[whole.index("---") :]).encode()[:-20])
    assert read_cassette(path).incomplete == whole.count("\n") + 1
    assert recorded_to(path, chat("b", trajectory="u")).startswith(whole)
    assert len(read_cassette(path).entries) == 2


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_a_recorder_that_was_killed_at_once_leaves_a_file_to_record_to(length: int, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(HEADER[:length])
    recorded_to(path, chat("a"))
    assert len(read_cassette(path).entries) == 1


def test_two_recorders_of_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    first = Recorder(path, ())
    with pytest.raises(CassetteError, match="another emulator is recording it"):
        Recorder(path, ())
    first.close()
    Recorder(path, ()).close()


def test_a_link_to_a_cassette_is_that_cassette(tmp_path: Path) -> None:
    recorded_to(tmp_path / "c.yaml", chat("b"))
    (tmp_path / "link.yaml").symlink_to("c.yaml")
    recorded_to(tmp_path / "link.yaml", chat("a", trajectory="u"))
    assert (tmp_path / "link.yaml").is_symlink()
    assert len(read_cassette(tmp_path / "c.yaml").entries) == 2


BLOCK = """\
---
request:
  path: /v1/chat/completions
  trajectory: t
  turn: 1
  json:
    messages: []
answer:
  status: 200
  after: 0.1
  stream:
  - {after: 0.1, event: a}
...
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("cassette: 1", "cassettes: 1", 1, "this is no cassette"),
        ("cassette: 1", "cassette: 2", 1, "version 2"),
        ("cassette: 1", "cassette: [", 3, ""),
        ("request:", "requests:", 4, "the keys request and answer"),
        ("  path: /v1/chat/completions\n", "", 4, "path is missing"),
        ("path: /v1/chat/completions", "path: 7", 5, "path is a text"),
        ("turn: 1", "turn: first", 7, "turn is a whole number"),
        ("turn: 1", "turn: true", 7, "turn is a whole number"),
        ("turn: 1", "turn: 1\n  continues: 0", 8, "no turn 0"),
        ("  json:\n", "  jsn:\n", 8, "there is no key 'jsn'"),
        ("    messages: []", "    messages: []\n  text: x", 4, "there is one body"),
        ("status: 200", "status: 100", 11, "status 100"),
        ("status: 200", "status: 200\n  content-type: \"a\\nb\"", 12, "cannot stand in a header"),
        ("status: 200", "status: 200\n  authorization: x", 12, "there is no key 'authorization'"),
        ("after: 0.1\n", "after: -1\n", 12, "a number of seconds"),
        ("{after: 0.1, event: a}", "{after: 0.1}", 14, "there is one body"),
        ("{after: 0.1, event: a}", "{after: 0.1, event: a, text: b}", 14, "is enough"),
        ("{after: 0.1, event: a}", "{after: 0.1, text: ''}", 14, "is not empty"),
        ("{after: 0.1, event: a}", "{after: 0.1, base64: '?'}", 14, "not base64"),
        ("{after: 0.1, event: a}", "{after: 0.1, event: a", 15, ""),
        ("{after: 0.1, event: a}", "{after: 0.1, event: \xff}", 14, "not UTF-8"),
        ("  stream:\n  - {after: 0.1, event: a}", "  style: odd\n  json: {}", 13, "style is one of compact"),
        ("  stream:\n  - {after: 0.1, event: a}", "  x", 14, ""),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_line_and_the_reason(
    old: str, new: str, line: int, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.yaml"
    text = HEADER.decode() + BLOCK
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("latin-1"))
    with pytest.raises(CassetteError) as caught:
        read_cassette(path)
    assert str(caught.value).startswith(f"{path}:{line}: "), str(caught.value)
    assert reason in str(caught.value)


def test_the_line_of_a_mistake_counts_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    text = HEADER.decode() + BLOCK + BLOCK.replace("status: 200", "status: two")
    path.write_text(text)
    with pytest.raises(
        CassetteError, match=f":{text[: text.index('two')].count(chr(10)) + 1}: status is a whole number"
    ):
        read_cassette(path)


def test_a_file_with_the_line_ends_of_windows_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(recorded_to(path, chat("a\nb", answer='{"x":"y\\nz"}')), newline="\r\n")
    (entry,) = read_cassette(path).entries
    assert told(entry.recorded) == told(chat("a\nb", answer='{"x":"y\\nz"}'))


def test_a_file_that_is_not_there_is_refused_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match="No such file or directory; --record MODEL makes one"):
        read_cassette(tmp_path / "nothing.yaml")
