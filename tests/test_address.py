"""What `--database` names, and that no password in it is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.address import DatabaseURL, parse_address


@pytest.mark.parametrize(
    "text", ["t.db", "/a/t.db", ":memory:.db", "a b?c#d%41.db", "c:\\t.db", "postgresql:t.db", "postgresql"]
)
def test_whatever_is_no_url_is_a_file(text: str) -> None:
    assert parse_address(text) == Path(text)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "PostgreSQL"])
def test_postgresql_has_several_names(scheme: str) -> None:
    address = parse_address(f"{scheme}://u:p@h:1/n?sslmode=require")
    assert isinstance(address, DatabaseURL)
    assert address.conninfo == "postgresql://u:p@h:1/n?sslmode=require"


@pytest.mark.parametrize("text", ["sqlite:///t.db", "mysql://u:secret@h/n", "postgresql+asyncpg://u:secret@h/n"])
def test_other_urls_are_refused_with_what_is_possible(text: str) -> None:
    with pytest.raises(ValueError, match=r"a file's path.*postgresql://USER:PASSWORD@HOST:PORT/NAME") as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u@h:1/n", "postgresql://u@h:1/n"),
        ("postgresql://h:1/n?application_name=a%40b", "postgresql://h:1/n?application_name=a%40b"),
        ("postgresql://h:1/n?application_name=a@b", "postgresql://h:***@b"),  # it could be one
        ("postgresql:///n?host=/run", "postgresql:///n?host=/run"),
        ("postgresql://u:secret@h:1/n", "postgresql://u:***@h:1/n"),
        ("postgresql://:secret@h/n", "postgresql://:***@h/n"),
        ("postgresql://u:secret@h:1,[::1]:2/n", "postgresql://u:***@h:1,[::1]:2/n"),
        ("postgresql://u:secret/secret@h/n", "postgresql://u:***@h/n"),
        ("postgresql://u:secret@secret@h/n", "postgresql://u:***@h/n"),
        ("postgresql://u:secret?secret#secret@h/n", "postgresql://u:***@h/n"),
        ("postgresql://u:\nsecret@h/n", "postgresql://u:***@h/n"),
        ("postgresql://h/n?user=u&password=secret&sslmode=require", "postgresql://h/n?user=u&password=***&sslmode=require"),
        ("postgresql://h/n?p%61ssword=secret&sslpassword=secret", "postgresql://h/n?p%61ssword=***&sslpassword=***"),
    ],
)  # fmt: skip
def test_it_is_shown_without_passwords(text: str, shown: str) -> None:
    address = parse_address(text)
    assert str(address) == repr(address) == f"{address}" == shown
