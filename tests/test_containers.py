"""The container files, as far as they can be checked without an engine: they parse, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from emulator.settings import Settings, load_settings, setting_fields

ROOT = Path(__file__).parent.parent
VARIABLES = {each.variable for each in setting_fields()}


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def dockerfile_environment() -> dict[str, str]:
    text = (ROOT / "Dockerfile").read_text()
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE))))


def test_the_image_is_given_settings_that_exist_and_make_sense() -> None:
    environment = dockerfile_environment()
    assert environment.keys() <= VARIABLES
    settings = load_settings({}, environment)
    assert settings.host == "0.0.0.0"
    assert settings.port == Settings().port


def test_the_image_exposes_the_port_that_the_server_listens_on() -> None:
    assert f"EXPOSE {Settings().port}" in (ROOT / "Dockerfile").read_text()


def test_everything_that_the_build_copies_is_in_the_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"emulator", "migrations", "pyproject.toml", "README.md", "LICENSE"} & set(ignored)


def test_by_default_the_emulator_is_alone_and_published_on_loopback_only() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["emulator"]
    assert services["emulator"]["ports"] == [f"127.0.0.1:{Settings().port}:{Settings().port}"]
    assert services["emulator"]["environment"].keys() <= VARIABLES


def test_the_gpu_profile_adds_vllm_and_the_emulator_waits_for_its_health() -> None:
    services = compose()["services"]
    assert services["vllm"]["profiles"] == ["gpu"]
    assert services["vllm"]["image"].startswith("vllm/vllm-openai")
    assert "healthcheck" in services["vllm"]
    assert services["emulator"]["depends_on"]["vllm"] == {"condition": "service_healthy", "required": False}


def test_volumes_that_services_use_are_declared() -> None:
    document = compose()
    used = {volume.split(":")[0] for service in document["services"].values() for volume in service["volumes"]}
    assert used == set(document["volumes"])
