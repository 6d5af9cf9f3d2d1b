"""`job-runtime-local cassette`, as its users call it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from emulator.cli import main
from tests.cassettes import recording
from tests.conftest import JOB_ARN
from tests.raw_client import STREAM, RawClient


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    """Three answers of the scripted model, one of them a stream."""
    path = tmp_path / "c.yaml"
    with recording(path, "scripted") as server, closing(RawClient(server.url, JOB_ARN)) as client:
        question = (
            b'"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hel\\u001blo"}]'
        )
        client.sample("t-1", b'{"model": "default", %b}' % question)
        client.sample("t-1", b'{"model": "default", "stream": true, %b}' % question, STREAM)
        with urlopen(f"{server.url}/v1/models") as answer:
            answer.read()
    return path


def test_show_lists_what_was_asked_and_answered(cassette: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cassette", "show", str(cassette)]) == 0
    _, models, whole, stream = capsys.readouterr().out.splitlines()
    assert "/v1/models" in models
    for word in ("t-1", "/v1/chat/completions", "Hel\\x1blo", "default", " 200 "):
        assert word in whole, whole
    assert " pieces" in stream
    for line in (models, whole, stream):
        place = int(line.split()[0])
        assert cassette.read_text().splitlines()[place - 1] == "---"


def test_check_counts_answers_and_trajectories(cassette: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cassette", "check", str(cassette)]) == 0
    assert capsys.readouterr().out == f"{cassette}: 3 answers, 1 trajectory\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("status: 200", "status: two", ":8: status is a whole number"),
        ("...\n", "", ": the answer that begins here has no end"),
    ],
)
def test_check_refuses_a_wrong_file_with_its_line(
    old: str, new: str, message: str, cassette: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = cassette.read_text()
    cassette.write_text(text.replace(old, new, 1) if "two" in new else text.removesuffix(old))
    assert main(["cassette", "check", str(cassette)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"job-runtime-local: {cassette}:")
    assert message in line
