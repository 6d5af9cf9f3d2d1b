"""Who may visit `/_emulator/`; that every route asks is tested in test_management."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from emulator.protocol.errors import AccessDeniedException
from emulator.settings import Settings
from emulator.visitors import refuse_strangers

LOOPBACK = Settings()
REMOTE = Settings(host="0.0.0.0", insecure_remote=True)
NAMED = Settings(host="box.example.com", insecure_remote=True)
STRICT = Settings(host="0.0.0.0", auth="strict", key_pairs=("AKID:secret",))


def a_request(host: str | None = "localhost:4580", peer: str | None = "127.0.0.1", **headers: str) -> Scope:
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    fields = [(name.encode(), value.encode()) for name, value in named.items() if value is not None]
    return {"type": "http", "headers": fields, "client": None if peer is None else (peer, 50000)}


def is_welcome(scope: Scope, settings: Settings) -> bool:
    try:
        refuse_strangers(scope, settings)
    except AccessDeniedException:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1:4580", "localhost", "LocalHost:80", "[::1]", "[::1]:4580"])
def test_loopback_by_any_of_its_names_is_welcome(host: str) -> None:
    for settings in (LOOPBACK, REMOTE, STRICT):
        assert is_welcome(a_request(host), settings)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "[2001:db8::1]:4580", "emulator:4580", "box.local", "evil.example", None, ""]
)
def test_a_server_on_loopback_has_no_other_name(host: str | None) -> None:
    assert not is_welcome(a_request(host), LOOPBACK)


@pytest.mark.parametrize(
    "host",
    ["192.0.2.7:4580", "[2001:db8::1]:4580", "emulator:4580", "host.docker.internal:4580", "box.local", "0.0.0.0"],
)
def test_a_server_for_other_machines_is_known_by_addresses_and_private_names(host: str) -> None:
    assert is_welcome(a_request(host), REMOTE)


@pytest.mark.parametrize(
    ("host", "welcome"),
    [
        ("mlflow.sagemaker.us-west-2.app.aws", True),
        ("us-west-2.experiments.sagemaker.aws:443", True),
        ("mlflow.sagemaker.us-west-2.app.aws.evil.example", False),
        ("evil.app.aws", False),
    ],
)
def test_sagemakers_mlflow_is_a_name_of_every_server(host: str, welcome: bool) -> None:
    assert [is_welcome(a_request(host), settings) for settings in (LOOPBACK, REMOTE)] == [welcome] * 2


@pytest.mark.parametrize("host", ["evil.example:4580", "internal.evil.example", "a@b", "[::1", "a:b:c", "", None])
def test_but_by_no_name_that_anyone_could_register(host: str | None) -> None:
    assert not is_welcome(a_request(host), REMOTE)


def test_the_configured_name_is_welcome() -> None:
    assert is_welcome(a_request("Box.example.com:4580"), NAMED)
    assert not is_welcome(a_request("other.example.com:4580"), NAMED)


def test_with_strict_authentication_a_server_for_other_machines_shows_itself_to_this_one_only() -> None:
    assert is_welcome(a_request(peer="127.0.0.1"), STRICT)
    assert is_welcome(a_request(peer="::1"), STRICT)
    assert not is_welcome(a_request(peer="192.0.2.7"), STRICT)
    assert not is_welcome(a_request(peer=None), STRICT)
    assert is_welcome(a_request(peer="192.0.2.7"), REMOTE)


@pytest.mark.parametrize("settings", [LOOPBACK, STRICT], ids=["loopback", "strict"])
def test_a_proxy_on_this_machine_makes_nobody_else_a_visitor_from_it(settings: Settings) -> None:
    assert is_welcome(a_request(x_forwarded_for="127.0.0.1"), settings)
    assert is_welcome(a_request(x_forwarded_for="::1, 127.0.0.1"), settings)
    for forwarded in ("192.0.2.7", "127.0.0.1, 192.0.2.7", "192.0.2.7,127.0.0.1", "unknown", "", "127.0.0.1,"):
        assert not is_welcome(a_request(x_forwarded_for=forwarded), settings)
    twice = a_request(x_forwarded_for="192.0.2.7")
    twice["headers"].append((b"x-forwarded-for", b"127.0.0.1"))
    assert not is_welcome(twice, settings)
    assert not is_welcome(a_request(peer="192.0.2.7", x_forwarded_for="127.0.0.1"), settings)


def test_a_server_that_answers_other_machines_answers_them_through_a_proxy_too() -> None:
    assert is_welcome(a_request(peer="192.0.2.7", x_forwarded_for="192.0.2.8"), REMOTE)


def test_an_origin_must_be_the_host() -> None:
    assert is_welcome(a_request(origin="http://localhost:4580", sec_fetch_site="same-origin"), LOOPBACK)
    for origin in ("http://localhost:3000", "http://127.0.0.1:4580", "https://evil.example", "null", ""):
        assert not is_welcome(a_request(origin=origin), LOOPBACK)


def test_a_browser_that_says_cross_site_is_believed() -> None:
    assert not is_welcome(a_request(sec_fetch_site="cross-site"), LOOPBACK)
    assert is_welcome(a_request(sec_fetch_site="none"), LOOPBACK)
