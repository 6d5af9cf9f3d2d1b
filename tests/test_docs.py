"""What docs/ shows is so."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from contextlib import closing
from pathlib import Path

from emulator.commands.serve import configure
from emulator.inference.cassette import CassetteServer
from emulator.inference.cassette.conversations import Conversations
from emulator.inference.cassette.file import HEADER, read_cassette
from emulator.inference.cassette.writing import write_block
from emulator.inference.chosen import make_model_server
from emulator.settings_sources import load_settings, setting_fields
from tests.cassettes import replaying
from tests.conftest import JOB_ARN
from tests.raw_client import STREAM, RawClient

DOCS = Path(__file__).parent.parent / "docs"
CASSETTES = (DOCS / "cassettes.md").read_text()


def shown(language: str) -> str:
    """The first block of a language in docs/cassettes.md."""
    found = re.search(rf"```{language}\n(.*?)```", CASSETTES, re.DOTALL)
    assert found
    return found[1]


def test_the_cassette_is_what_would_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text(shown("yaml"))
    written, conversations = HEADER.decode(), Conversations()
    for entry in read_cassette(path).entries:
        written += f"---\n{write_block(entry.recorded, conversations)}...\n"
        conversations.add(entry.recorded)
    assert written == path.read_text()


def test_the_cassette_replays_and_what_is_not_there_is_told_as_shown(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text(shown("yaml"))
    first, second = (json.loads(entry.recorded.body) for entry in read_cassette(path).entries)
    with replaying(path) as server, closing(RawClient(server.url, JOB_ARN)) as client:
        reply = client.sample("any", json.dumps(first).encode())
        assert json.loads(reply.body)["choices"][0]["message"]["content"] == "42"
        assert client.sample("any", json.dumps(second).encode(), STREAM).body.endswith(b"data: [DONE]\n\n")
        first["messages"][1]["content"] = "What is 6 * 8?"
        refusal = client.sample("any", json.dumps(first).encode()).message
    assert refusal.replace(str(path), "answers.yaml") == shown("text").strip()


def test_the_commands_start_what_they_say() -> None:
    for line in shown("sh").splitlines():
        program, command, *options = shlex.split(line, comments=True)
        assert program == "job-runtime-local"
        if command == "serve":
            parser = argparse.ArgumentParser()
            configure(parser)
            given = parser.parse_args(options)
            settings = load_settings({each.name: getattr(given, each.name) for each in setting_fields()}, {})
            assert isinstance(make_model_server(settings), CassetteServer)


def test_the_options_exist() -> None:
    known = {each.option for each in setting_fields()}
    assert set(re.findall(r"`(--cassette-[a-z-]+)", CASSETTES)) == {name for name in known if "cassette" in name}
