"""The container files, as far as they can be checked without an engine: they parse, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from emulator.settings import Settings
from emulator.settings_sources import load_settings, setting_fields

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


def services_of(profile: str) -> dict[str, Any]:
    """What a profile adds."""
    return {name: service for name, service in compose()["services"].items() if profile in service.get("profiles", ())}


def with_defaults(text: str) -> str:
    """A value as it is when none of the variables in it is set."""
    return re.sub(r"\$\{\w+:-([^{}]*)\}", r"\1", text)


def test_by_default_the_emulator_is_alone_and_published_on_loopback_only() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["emulator"]
    assert services["emulator"]["ports"] == [f"127.0.0.1:{Settings().port}:{Settings().port}"]
    assert services["emulator"]["environment"].keys() <= VARIABLES


def test_the_gpu_profile_adds_vllm_and_the_emulator_waits_for_its_health() -> None:
    services = compose()["services"]
    assert services_of("gpu").keys() == {"vllm"}
    assert services["vllm"]["image"].startswith("vllm/vllm-openai")
    assert "healthcheck" in services["vllm"]
    assert services["emulator"]["depends_on"]["vllm"] == {"condition": "service_healthy", "required": False}


def test_the_scale_profile_is_two_emulators_on_one_postgresql_between_a_proxy_and_vllm() -> None:
    services = services_of("scale")
    assert services.keys() == {"proxy", "emulator-1", "emulator-2", "postgresql", "vllm"}
    assert services["emulator-1"] == services["emulator-2"]
    given = {name: with_defaults(value) for name, value in services["emulator-1"]["environment"].items()}
    settings = load_settings({}, dockerfile_environment() | given)
    assert settings.model == "http://vllm:8000"
    database = urlsplit(settings.database)
    stored = {name: with_defaults(value) for name, value in services["postgresql"]["environment"].items()}
    assert (database.scheme, database.hostname, database.port) == ("postgresql", "postgresql", 5432)
    assert (database.username, database.password, database.path) == (
        stored["POSTGRES_USER"],
        stored["POSTGRES_PASSWORD"],
        f"/{stored['POSTGRES_DB']}",
    )


def test_each_service_of_the_scale_profile_waits_until_those_that_it_needs_are_healthy() -> None:
    services = services_of("scale")
    needs = {name: set(service.get("depends_on", ())) for name, service in services.items()}
    assert needs["proxy"] == {"emulator-1", "emulator-2"}
    assert needs["emulator-1"] == {"postgresql", "vllm"}
    for name, service in services.items():
        for needed in needs[name]:
            assert service["depends_on"][needed]["condition"] == "service_healthy"
            assert "healthcheck" in services[needed] or services[needed]["build"] == "."  # the image has its own
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()


def test_of_the_scale_profile_only_the_proxy_is_published_and_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in services_of("scale").items() if "ports" in service}
    assert published.keys() == {"proxy"}
    (port,) = published["proxy"]
    assert port.startswith("127.0.0.1:")
    assert port not in compose()["services"]["emulator"]["ports"]


def test_the_proxys_configuration_names_the_emulators_and_the_port_of_the_scale_profile() -> None:
    (volume,) = services_of("scale")["proxy"]["volumes"]
    source, target, mode = volume.split(":")
    assert (target, mode) == ("/etc/nginx/nginx.conf", "ro")
    configuration = (ROOT / source).read_text()
    servers = set(re.findall(r"^\s+server (\S+):(\d+) ", configuration, re.MULTILINE))
    assert servers == {(name, str(Settings().port)) for name in services_of("scale") if name.startswith("emulator")}
    (port,) = services_of("scale")["proxy"]["ports"]
    assert re.findall(r"listen (\d+);", configuration) == [port.rpartition(":")[2]]


def test_volumes_that_services_use_are_declared_and_files_exist() -> None:
    document = compose()
    used = {volume.split(":")[0] for service in document["services"].values() for volume in service.get("volumes", ())}
    files = {each for each in used if each.startswith("./")}
    assert used - files == set(document["volumes"])
    assert all((ROOT / file).is_file() for file in files)
