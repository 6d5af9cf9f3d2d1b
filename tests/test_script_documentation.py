"""docs/script.md tells the truth: its rule files are right, its commands print what it shows, its Python runs."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.inference.scripted.script_file import load
from emulator.inference.scripted.yaml_nodes import read
from emulator.inference.scripted.yaml_rules import Vocabulary
from tests.inference.test_rule_files import SCHEMA, VALIDATOR

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "script.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
FILES = {"yaml": "rules.yaml", "json": "request.json", "python": "rules.py"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def transcript(block: str) -> Iterator[tuple[list[str], str]]:
    """Commands, and what they print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield shlex.split(command), printed


def test_the_commands_print_what_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for kind, block in BLOCKS:
        if kind in FILES:
            (folder / FILES[kind]).write_text(block)
            continue
        assert kind == "console"
        for command, printed in transcript(block):
            assert command.pop(0) == "job-runtime-local"
            main(command)
            assert capsys.readouterr().out == printed, command
            ran += 1
    assert ran >= 6


README = re.findall(r"```yaml\n(rules:.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "yaml"] + README)
def test_the_rule_files_are_right(block: str, folder: Path) -> None:
    (folder / "rules.yaml").write_text(block)
    assert len(load(folder / "rules.yaml")) > 0
    VALIDATOR.validate(read(block.encode()).plain())


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_the_python_runs(block: str, folder: Path) -> None:
    (folder / "rules.py").write_text(block)
    if "RULES" in block:
        assert len(load(folder / "rules.py")) == 3
    else:
        exec(compile(block, "docs/script.md", "exec"), {})
    assert "rules" not in sys.modules


def test_the_tables_the_schema_and_the_parser_know_the_same_names() -> None:
    script = Vocabulary()
    definitions = SCHEMA["$defs"]
    known = {
        "The file": (script.file_members, SCHEMA),
        "A rule": (script.rule_members, definitions["rule"]),
        "Conditions": (script.conditions, definitions["conditions"]),
        "A reply": (script.reply_members, definitions["reply_mapping"]),
    }
    for title, (members, schema) in known.items():
        assert members.keys() == schema["properties"].keys(), title
        section = re.search(rf"^##+ {title}\n(.*?)(?=^##)", TEXT, re.DOTALL | re.MULTILINE)
        assert section is not None
        cells = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
        assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(members), title
    assert script.error_members.keys() == definitions["error"]["properties"].keys()
    assert script.rhythm_members.keys() == definitions["rhythm"]["properties"].keys()
    assert script.call_members.keys() == definitions["tool_call"]["properties"].keys()
    weighted = definitions["weighted_reply"]["anyOf"][1]["properties"]
    assert weighted.keys() == {*script.reply_members, "weight"}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
            assert target[1:] in {title.lower().replace(" ", "-") for title in titles}
        elif not target.startswith("https:"):
            assert (ROOT / "docs" / target).exists()
