"""A file of what is kept that cannot be read, or not be written: whoever asks is told so, and it stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.settings import Settings
from emulator.testing import running_server
from tests.aws.conftest import client, make_bucket


def server_of(database: Path) -> Any:
    return running_server(Settings(port=0, database=str(database)))


def of_a_later_version(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()


def no_database(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


def cut_off(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def overwritten_in_the_middle(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(3 * 4096)
        opened.write(b"\xff" * (file.stat().st_size - 3 * 4096))


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [of_a_later_version, no_database, cut_off, overwritten_in_the_middle, a_folder])
def test_whoever_asks_is_told_which_file_it_is(database: Path, damage: Callable[[Path], None]) -> None:
    with server_of(database) as server:
        s3 = client(server, "s3")
        make_bucket(s3)
        for number in range(20):
            s3.put_object(Bucket="bucket", Key=str(number), Body=bytes(10_000))
        client(server, "sagemaker").create_artifact(ArtifactType="t", Source={"SourceUri": "s3://bucket/1"})
    file = database.with_name(f"{database.name}-aws")
    damage(file)
    content = None if file.is_dir() else file.read_bytes()
    with server_of(database) as server:
        for call in (client(server, "s3").list_buckets, client(server, "sagemaker").list_artifacts):
            with pytest.raises(ClientError, match=str(file)) as error:
                call()
            assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert content is None or file.read_bytes()[100:] == content[100:]  # but for what SQLite counts in its head
