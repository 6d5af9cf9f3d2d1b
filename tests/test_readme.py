"""The README tells the truth: its settings are the settings, its guesses are the guesses, its snippets run.

`python -m tests.test_readme` writes the settings table anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emulator.server import Server
from emulator.settings import Settings
from emulator.settings_sources import setting_fields
from tests.conftest import JOB_ARN
from tests.raw_client import RawClient
from tests.scraped import scrape

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text()

SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def section(name: str, text: str = TEXT) -> str:
    """What stands between the two comments of that name."""
    found = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", text, re.DOTALL)
    assert found is not None
    return found[1]


def settings_table() -> str:
    rows = ["| Option | Default | |", "|---|---|---|"]
    for each in setting_fields():
        default = f"`{each.shown_default}`" if each.shown_default else ""
        choices = f"{', '.join(f'`{choice}`' for choice in each.choices)}. " if each.choices else ""
        rows.append(f"| `{each.option}` | {default} | {choices}{each.help} |")
    return "\n".join(rows) + "\n"


def test_the_settings_table_holds_every_setting() -> None:
    assert section("settings") == settings_table(), "run `python -m tests.test_readme`"


def test_every_guess_in_the_code_is_in_the_table_and_the_other_way_round() -> None:
    in_code = {
        str(path.relative_to(ROOT / "emulator")): len(re.findall(r"# ASSUMED:", path.read_text()))
        for path in (ROOT / "emulator").rglob("*.py")
    }
    in_table: dict[str, int] = {}
    for place in re.findall(r"^\|.*\| `(.+?)` \|$", section("guesses"), re.MULTILINE):
        in_table[place] = in_table.get(place, 0) + 1
    assert in_table == {place: count for place, count in in_code.items() if count}


def test_the_table_of_metrics_holds_every_metric_with_its_labels(server: Server) -> None:
    rows = re.findall(r"^\| `(job_runtime_\w+)` \|(.*?)\|", section("metrics"), re.MULTILINE)
    with RawClient(server.url, JOB_ARN) as client:
        assert client.sample("t", b'{"messages": [{"role": "user", "content": "Hello"}]}').status == 200
    exported = {}
    for family in scrape(server.url).families:
        if family.name.startswith("job_runtime_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            exported[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == exported


def test_prometheus_would_find_the_metrics_by_the_configuration_that_is_shown(server: Server) -> None:
    snippet = re.search(r"```yaml\n(scrape_configs:.*?)```", TEXT, re.DOTALL)
    assert snippet is not None
    (config,) = yaml.safe_load(snippet[1])["scrape_configs"]
    assert config.keys() == {"job_name", "static_configs"}  # path and scheme are Prometheus's own: /metrics, http
    assert config["static_configs"] == [{"targets": [f"{Settings().host}:{Settings().port}"]}]


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_snippets_run(number: int, server: Server, tmp_path: Path) -> None:
    environment = os.environ | {
        "AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME": server.url,
        "RFT_RUNTIME_ENDPOINT": server.url,
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SNIPPETS[number]],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_commands_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", TEXT, re.MULTILINE))
    assert {first or second for first, second in named} <= targets


def test_files_that_the_documents_name_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([A-Za-z/]+\.md)\)", (ROOT / document).read_text()):
            assert (ROOT / link).exists(), link


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    tree = re.search(r"```\n(emulator/.*?)```", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL)
    assert tree is not None
    named = {name.strip("/") for line in tree[1].splitlines() for name in line.strip().split("  ")[0].split()}
    package = ROOT / "emulator"
    found = {path.name for path in package.iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert found <= named, "ARCHITECTURE.md does not say what these are for"
    for name in named:
        folders = (ROOT, *(package / folder for folder in ("", "operations", "store", "inference", "trainer", "aws")))
        assert any((folder / name).exists() for folder in folders), name


if __name__ == "__main__":
    before, rest = TEXT.split("<!-- settings: begin -->\n")
    _, after = rest.split("<!-- settings: end -->")
    README.write_text(f"{before}<!-- settings: begin -->\n{settings_table()}<!-- settings: end -->{after}")
