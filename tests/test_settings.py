"""Settings come from the command line, the environment and TOML, in that order, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emulator.address import DatabaseURL
from emulator.settings import InvalidSetting, Settings
from emulator.settings_sources import load_settings, setting_fields, unknown_variables


def load(
    given: dict[str, Any] | None = None, toml: str = "", tmp_path: Path | None = None, **environment: str
) -> Settings:
    config = None
    if tmp_path is not None:
        config = tmp_path / "settings.toml"
        config.write_text(toml)
    variables = {f"JOB_RUNTIME_LOCAL_{name.upper()}": value for name, value in environment.items()}
    return load_settings(given or {}, variables, config)


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Settings()


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    toml = "port = 1\nmax-in-flight = 1\nregion = 'eu-west-1'\n"
    settings = load({"port": "3", "region": None}, toml, tmp_path, port="2", max_in_flight="2")
    assert (settings.port, settings.max_in_flight, settings.region) == (3, 2, "eu-west-1")


def test_every_setting_has_an_option_and_a_variable() -> None:
    for each in setting_fields():
        own = {"agents": "--agent", "key_pairs": "--key-pair", "cassette_ignores": "--cassette-ignore"}
        assert each.option == own.get(each.name, "--" + each.name.replace("_", "-"))
        assert each.variable == "JOB_RUNTIME_LOCAL_" + each.name.upper()
        assert each.help


def test_a_variable_that_is_set_to_nothing_is_not_set() -> None:
    assert load(model="").model == "scripted"


def test_lists_are_separated_by_commas_in_the_environment(tmp_path: Path) -> None:
    assert load(key_pairs="a:b,c:d").key_pairs == ("a:b", "c:d")
    assert load({"key_pairs": ["a:b"]}).key_pairs == ("a:b",)
    assert load({}, "key_pairs = ['a:b', 'c:d']", tmp_path).key_pairs == ("a:b", "c:d")


def test_numbers_and_truth_are_read_from_text() -> None:
    settings = load(model_idle_timeout="1.5", insecure_remote="true")
    assert settings.model_idle_timeout == 1.5
    assert settings.insecure_remote is True


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("port", "many", "'many' is not a whole number"),
        ("port", "65536", "65536 is not between 0 and 65535"),
        ("model_connect_timeout", "soon", "'soon' is not a number"),
        ("model_connect_timeout", "0", "must be greater than 0"),
        ("model_connect_timeout", "nan", "must be greater than 0"),
        ("max_request_bytes", "-1", "must be greater than 0"),
        ("shutdown_timeout", "-1", "must be a number of seconds, not negative"),
        ("shutdown_timeout", "inf", "must be a number of seconds, not negative"),
        ("account", "\N{FULLWIDTH DIGIT ONE}" * 12, "is not a number of 12 digits"),
        ("durability", "most", "'most' is not one of full, normal, memory"),
        ("insecure_remote", "perhaps", "'perhaps' is not true or false"),
        ("account", "12", "is not a number of 12 digits"),
        ("auth", "strict", "needs at least one --key-pair"),
        ("host", "0.0.0.0", "can be reached from other machines"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_the_setting(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message) as caught:
        load({name: value})
    text = str(caught.value)
    assert name.replace("_", "-") in text.replace("_", "-")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("colour = 'red'", "there is no setting 'colour'"),
        ("port = [", "not TOML"),
        ("port = true", "is not a whole number"),
        ("port = 4580.5", "is not a whole number"),
        ("port = inf", "is not a whole number"),
        ("key_pairs = [1]", "must be a list of texts"),
        ("[port]\nx = 1", "is not a whole number"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(toml: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=message) as caught:
        load({}, toml, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="No such file"):
        load_settings({}, {}, Path("no-such-file.toml"))


def test_another_address_than_loopback_needs_strict_authentication_or_a_word() -> None:
    assert load({"host": "0.0.0.0", "insecure_remote": True}).host == "0.0.0.0"
    assert load({"host": "0.0.0.0", "auth": "strict", "key_pairs": ["a:b"]}).host == "0.0.0.0"


def test_loopback_is_any_of_its_addresses() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert load({"host": host}).host == host
    for host in ("localhost.example", "192.168.0.1", "::"):
        with pytest.raises(InvalidSetting, match="can be reached from other machines"):
            load({"host": host})


def test_variables_that_are_no_settings_are_noticed() -> None:
    environment = {"JOB_RUNTIME_LOCAL_PROT": "1", "JOB_RUNTIME_LOCAL_PORT": "1", "JOB_RUNTIME_LOCAL_CONFIG": "x"}
    assert unknown_variables(environment | {"PATH": "/bin"}) == ["JOB_RUNTIME_LOCAL_PROT"]


def test_the_model_is_shown_without_what_may_be_secret() -> None:
    assert load({"model": "vllm:some/model --hf-token hf_SECRET"}).shown_model == "vllm:some/model …"
    assert load({"model": "http://127.0.0.1:8000"}).shown_model == "http://127.0.0.1:8000"


def test_a_database_is_a_file_or_a_postgresql_database() -> None:
    assert load({"database": "t.db"}).address == Path("t.db")
    assert load({"database": "postgres://h/n"}).address == DatabaseURL("postgresql://h/n")
    assert load({"database": "postgresql://u:wJalr@h/n"}).shown_database == "postgresql://u:***@h/n"
    with pytest.raises(InvalidSetting, match="database: mysql://… is not possible") as caught:
        load({"database": "mysql://u:wJalr@h/n"})
    assert "wJalr" not in str(caught.value)


def test_postgresql_cannot_keep_nothing() -> None:
    with pytest.raises(InvalidSetting, match=r"durability: memory keeps nothing.*postgresql://u:\*\*\*@h/n") as caught:
        load({"database": "postgresql://u:wJalr@h/n", "durability": "memory"})
    assert "wJalr" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    settings = load({"key_pairs": ["AKID:wJalr"], "model_api_key": "sk-wJalr", "database": "postgresql://u:wJalr@h/n"})
    assert "wJalr" not in repr(settings)
    with pytest.raises(InvalidSetting) as caught:
        load({"model_api_key": ["sk-wJalr"]})
    assert "wJalr" not in str(caught.value)
    with pytest.raises(InvalidSetting) as caught:
        load({"database": ["postgresql://u:wJalr@h/n"]})
    assert "wJalr" not in str(caught.value)
