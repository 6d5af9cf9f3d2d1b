"""Datasets behind `s3://`, of a local S3; never of AWS unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from emulator.trainer.datasets import DatasetError, read_dataset
from emulator.trainer.s3 import read_objects

OBJECTS = {
    "train.jsonl": b'{"prompt": "one object"}\n',
    "train/1.csv": b"prompt\nfirst\n",
    "train/2.json": b'[{"prompt": "second"}]',
    "train/README.md": b"no rows",
    "train/": b"",  # as consoles make folders
    "broken/rows.jsonl": b"{",
    "other/notes.txt": b"no rows",
}


@pytest.fixture(scope="module")
def local_s3() -> Iterator[str]:
    """The URL of moto's S3, with a bucket of objects."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client: Any = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="local", aws_secret_access_key="local"
    )
    client.create_bucket(Bucket="datasets")
    for key, body in OBJECTS.items():
        client.put_object(Bucket="datasets", Key=key, Body=body)
    client.close()
    yield url
    server.stop()


@pytest.fixture(autouse=True)
def without_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's AWS configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_object_gives_its_rows_and_a_prefix_those_of_its_objects(
    variable: str, local_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, local_s3)
    assert [row.prompt for row in read_dataset("s3://datasets/train.jsonl")] == ["one object"]
    assert [row.prompt for row in read_dataset("s3://datasets/train/")] == ["first", "second"]
    assert [row.prompt for row in read_dataset("s3://datasets/train")] == ["one object", "first", "second"]


@pytest.mark.parametrize(
    "configuration",
    [
        "[default]\nendpoint_url = {url}\n",
        "[default]\nservices = mine\n[services mine]\ns3 =\n  endpoint_url = {url}\n",
    ],
)
def test_the_endpoint_may_stand_in_the_aws_configuration(
    configuration: str, local_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(configuration.format(url=local_s3))
    assert read_dataset("s3://datasets/train.jsonl")[0].prompt == "one object"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://datasets/absent", "s3://datasets/absent: no such object"),
        ("s3://datasets/other", "s3://datasets/other: 1 objects begin so, of which none ends with .parquet"),
        ("s3://absent/rows.jsonl", "s3://absent/rows.jsonl: NoSuchBucket: "),
        ("s3://datasets/broken", "s3://datasets/broken/rows.jsonl: line 1: not JSON"),
        ("s3://", "s3://: names no bucket"),
        ("s3://No_Bucket!/x", "s3://No_Bucket!/x: "),
    ],
)
def test_what_is_wrong_is_named(url: str, problem: str, local_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", local_s3)
    with pytest.raises(DatasetError) as raised:
        read_dataset(url)
    assert str(raised.value).startswith(problem)


def test_an_endpoint_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match=r"s3://datasets/x: .*Could not connect"):
        read_dataset("s3://datasets/x")


def test_without_an_endpoint_nobody_is_asked() -> None:
    with pytest.raises(DatasetError, match="no endpoint is configured: AWS_ENDPOINT_URL_S3"):
        list(read_objects("s3://datasets/train.jsonl", (".jsonl",)))
