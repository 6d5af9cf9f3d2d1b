"""Exports are read back by the libraries that their users read them with."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import client_variables, program
from tests.export.conftest import Captured
from tests.export.test_schemas import OPTIONS

ROOT = Path(__file__).parents[2]

KINDS = ("jsonl", "parquet")


def offline(folder: Path) -> dict[str, str]:
    """The variables of a program that must not look anything up, and keeps what it caches in a folder of the test."""
    switches = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
    return client_variables() | switches | {"HF_HOME": str(folder / "home")}


@pytest.fixture(scope="module")
def read(captured: Captured, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was read of every format in every kind of file."""
    folder = tmp_path_factory.mktemp("read")
    files = []
    for name, options in OPTIONS.items():
        for kind in KINDS:
            files.append(folder / f"{name.replace('/', '-')}.{kind}")
            files[-1].write_bytes(captured.get(file=kind, **options).content)
    command = [str(program("datasets", "python")), "-m", "tests.export.read_back", str(folder / "report.json")]
    done = subprocess.run(
        [*command, *map(str, files)],
        cwd=ROOT, env=offline(folder), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_datasets_reads_the_very_rows(read: dict[str, Any], captured: Captured, name: str, kind: str) -> None:
    rows = read[f"{name.replace('/', '-')}.{kind}"]["rows"]
    assert [as_said(row) for row in rows] == [as_said(row) for row in captured.rows(**OPTIONS[name])]


@pytest.mark.parametrize("name", OPTIONS)
def test_pandas_reads_either_kind_with_the_same_columns_and_rewards(read: dict[str, Any], name: str) -> None:
    lines, parquet = (read[f"{name.replace('/', '-')}.{kind}"] for kind in KINDS)
    assert lines["columns"] == parquet["columns"]
    assert lines["rewards"] == parquet["rewards"]


def test_pandas_reads_times_of_parquet_as_timestamps(read: dict[str, Any]) -> None:
    assert read["native-1.parquet"]["types"]["created_at"] == "datetime64[us, UTC]"


def as_said(value: Any) -> Any:
    """A row whose times are the same however they are written, and numbers without the last bit.

    datasets 5.2 decodes JSON with ujson, which misses the nearest number of some.
    """
    if isinstance(value, dict):
        return {name: as_said(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_said(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.14g}")
    time = _TIME.fullmatch(value) if isinstance(value, str) else None
    return f"{time[1]} {time[2]} {round(float(time[3] or 0) * 1e6)}" if time else value


_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(?:Z|\+00:00)")
