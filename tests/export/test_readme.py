"""The commands and the snippet that the documents show of exports run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.environments import program
from tests.export.conftest import Captured
from tests.export.test_readers import ROOT, offline

README = (ROOT / "README.md").read_text().split("## Exports\n")[1].split("\n## ")[0]
PAGE = (ROOT / "docs" / "exports.md").read_text()

COMMANDS = re.findall(r"^(?:job-runtime-local export|curl) .*", README + PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_documents_runs(command: str, captured: Captured, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "curl":
        answer = captured.client.get(words[1].removeprefix("http://127.0.0.1:4580"))
        assert (answer.status_code, bool(answer.content)) == (200, True)
        return
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "emulator", *words[1:]],
        env=os.environ | {"JOB_RUNTIME_LOCAL_DATABASE": str(captured.database)},
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    assert file.name == words[-1]
    assert file.stat().st_size


def test_the_documents_show_every_format_and_purpose() -> None:
    shown = " ".join(COMMANDS).replace("=", " ")
    for word in ("openai", "trl", "tokens", "dpo", "sft", "parquet", "jsonl"):
        assert re.search(rf"\b{word}\b", shown), word


def test_the_snippet_for_datasets_runs(captured: Captured, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    captured.write(tmp_path / "tokens.parquet", "--format", "tokens")
    done = subprocess.run(
        [str(program("datasets", "python")), "-c", snippet + "print(len(tokens))"],
        cwd=tmp_path, env=offline(tmp_path), check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8
