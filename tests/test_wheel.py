"""What is installed from the wheel works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def run(wheel: Path, code: str, cwd: Path) -> str:
    """What a program prints that has the unpacked wheel before the checkout on its path."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_what_makes_it_a_package(wheel: Path) -> None:
    assert (wheel / "emulator" / "py.typed").exists()
    assert not (wheel / "tests").exists()
    (entry_points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "job-runtime-local = emulator.cli:main" in entry_points.read_text()
    assert "[pytest11]\njob_runtime = emulator.pytest_plugin" in entry_points.read_text()


def test_its_migrations_make_a_database(wheel: Path, tmp_path: Path) -> None:
    code = """
import emulator, sqlalchemy
from emulator.store import migrations
engine = sqlalchemy.create_engine("sqlite:///made.db")
with engine.connect() as connection:
    migrations.migrate(connection)
    print(emulator.__file__, migrations.folder(), sqlalchemy.inspect(connection).get_table_names())
"""
    printed = run(wheel, code, tmp_path)
    assert printed.startswith(str(wheel))
    assert str(wheel / "emulator" / "migrations") in printed
    assert "'trajectories', 'turns'" in printed
