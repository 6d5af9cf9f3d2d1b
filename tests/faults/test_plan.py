"""A plan is read from YAML; a wrong one is refused with file, line and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.app import App
from emulator.faults import Fault
from emulator.faults.plan import InvalidPlan, read_plan
from emulator.settings import InvalidSetting, Settings

PLAN = """\
# What a bad day is like.
faults:
  - {kind: rate-limit, retry_after: 2, share: 0.1, seed: 7}
  - kind: drop
    operation: [CompleteRollout, UpdateReward]
    when: after
    times: 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.yaml"


def test_a_plan_is_a_list_of_faults_under_a_name_or_without(path: Path) -> None:
    faults = (
        Fault("rate-limit", retry_after=2, share=0.1, seed=7),
        Fault("drop", operation=("CompleteRollout", "UpdateReward"), when="after", times=1),
    )
    path.write_text(PLAN)
    assert read_plan(path) == faults
    path.write_text(json.dumps([fault.document() for fault in faults], indent=1))
    assert read_plan(path) == faults


@pytest.mark.parametrize("text", ["", "# nothing\n", "faults: []\n", "[]"])
def test_a_plan_may_be_empty(path: Path, text: str) -> None:
    path.write_text(text)
    assert read_plan(path) == ()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("faults:\n  - kind: drop\n    tiems: 2\n", 3, "there is no option 'tiems'"),
        ("faults:\n  - kind: drop\n\n  - kind: dorp\n", 4, "'dorp' is no kind of fault"),
        ("faults:\n  - kind: drop\n  - times: 2\n", 3, "a fault needs a kind"),
        ("- kind: error\n  error: ConflictException\n", 2, "Sample models no 'ConflictException'"),
        ("- kind: latency\n  seconds: soon\n", 2, "seconds: 'soon' is not a number of seconds"),
        ("- kind: drop\n  times: 1\n  times: 2\n", 3, "times is given twice"),
        ("- drop\n", 1, "a fault is an object with a kind"),
        ("faults:\n  kind: drop\n", 2, "a plan is a list of faults"),
        ("faults: []\nrules: []\n", 2, "there is no 'rules' in a plan"),
        ("drop\n", 1, "a plan is a list of faults"),
        ("faults:\n  - {kind: drop\n", 3, "not YAML: "),
        ("faults:\n\t- kind: drop\n", 2, "not YAML: "),
        ("- kind: !!python/object/apply:os.getcwd []\n", 1, "not YAML: "),
        ("- &a {kind: drop}\n- *b\n", 2, "not YAML: "),
        ("faults: [{kind: drop}]\nfaults: []\n", 2, "faults is given twice"),
        ("- kind: drop\n  message: 2026-13-45\n", 2, "month must be in 1..12"),
    ],
)
def test_a_wrong_plan_is_refused_with_file_line_and_reason(path: Path, text: str, line: int, reason: str) -> None:
    path.write_text(text)
    with pytest.raises(InvalidPlan) as refusal:
        read_plan(path)
    assert str(refusal.value).startswith(f"{path}:{line}: ")
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_none_or_no_text_is_refused(path: Path) -> None:
    with pytest.raises(InvalidPlan, match="No such file"):
        read_plan(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidPlan, match="no text in UTF-8"):
        read_plan(path)
    for content in (b"kind: \x00", b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(InvalidPlan, match="not YAML"):
            read_plan(path)


def test_a_server_with_a_wrong_plan_does_not_start(path: Path) -> None:
    path.write_text("- kind: dorp\n")
    with pytest.raises(InvalidSetting, match=rf"faults: {path}:1: 'dorp' is no kind of fault"):
        App(Settings(durability="memory", faults=str(path)), "http://127.0.0.1:4580")


def test_a_server_has_the_faults_of_its_plan(path: Path) -> None:
    path.write_text(PLAN)
    app = App(Settings(durability="memory", faults=str(path)), "http://127.0.0.1:4580")
    assert tuple(given.fault for given in app.faults.given) == read_plan(path)
