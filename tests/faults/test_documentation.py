"""docs/faults.md says what the code does: its tables are the code's, its plan is one, its defaults are right."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from emulator import verdict
from emulator.conduct import CALLS, TRAJECTORIES
from emulator.faults import Fault, fault_of
from emulator.faults.fault import SELECTING
from emulator.faults.kinds import ALL, KINDS, SAMPLING
from emulator.faults.plan import read_plan
from tests.test_readme import README, ROOT, section

TEXT = (ROOT / "docs" / "faults.md").read_text()

FITS = {ALL: "any", SAMPLING: "samples", SAMPLING[:3]: "chats"}


def rows(text: str) -> list[list[str]]:
    """The cells of a table, less its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]


def test_the_table_of_kinds_holds_each_with_what_it_fits_and_its_options() -> None:
    shown = {name.strip("`"): (fits, options) for name, fits, options, *_ in rows(section("kinds", TEXT))}
    expected = {}
    for name, kind in KINDS.items():
        options = (
            f"`{option}`" if default is None else f"`{option}`=`{default}`" for option, default in kind.options.items()
        )
        expected[name] = (FITS[kind.operations], ", ".join(sorted(options)))
    assert list(shown) == list(expected)
    assert {name: (fits, ", ".join(sorted(options.split(", ")))) for name, (fits, options) in shown.items()} == expected


def test_the_table_of_selections_holds_each_with_its_default() -> None:
    table = TEXT.split("## Which calls\n\n")[1].split("\n\n")[0]
    shown = {option.strip("`"): default for option, default, _ in rows(table)}
    assert tuple(shown) == SELECTING
    defaults = {each.name: each.default for each in fields(Fault)}
    for name, default in shown.items():
        if default.startswith("`"):
            assert default.strip("`") == str(defaults[name])
        else:
            assert defaults[name] is None


def test_the_table_of_findings_is_the_verdicts_own() -> None:
    assert {name.strip("`"): meaning for name, meaning in rows(section("verdict", TEXT))} == verdict.KINDS
    assert f"{verdict.BACK_OFF * 1000:g} ms" in TEXT
    assert f"the last {CALLS} of the last {TRAJECTORIES:,} trajectories" in " ".join(TEXT.split())


def test_the_plan_that_is_shown_is_one(tmp_path: Path) -> None:
    plan = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert plan is not None
    path = tmp_path / "plan.yaml"
    path.write_text(plan[1])
    assert [fault.kind for fault in read_plan(path)] == ["rate-limit", "drop", "cut", "latency"]


def test_the_fault_that_the_readme_posts_is_one() -> None:
    posted = re.findall(r"/_emulator/faults --data '(.*?)'", README.read_text())
    assert [fault_of(json.loads(text)).kind for text in posted] == ["cut"]
