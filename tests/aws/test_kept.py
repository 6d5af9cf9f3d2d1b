"""What outlives the server: what a user made in AWS is there after a restart, a crash included."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.aws.conftest import client, make_bucket, refused
from tests.serving import serving

DAY = 24 * 60 * 60 * 1000
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)


@contextmanager
def server_of(database: Path) -> Iterator[Server]:
    """A server with a database on disk."""
    with running_server(Settings(port=0, database=str(database))) as server:
        yield server


def zipped(name: str, text: str) -> bytes:
    """A zip file with one file in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, text)
    return packed.getvalue()


def contents(s3: Any, bucket: str) -> dict[str, tuple[bytes, str, Any]]:
    """Content, ETag and age of every object."""
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", ())
    return {
        each["Key"]: (
            s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read(),
            each["ETag"],
            each["LastModified"],
        )
        for each in listed
    }


def test_buckets_and_objects_are_there_after_a_restart_as_they_were(database: Path) -> None:
    big = b"0123456789abcdef" * (9 << 16)
    with server_of(database) as server:
        s3 = client(server, "s3")
        for name in ("bucket", "emptied", "gone"):
            make_bucket(s3, name)
            s3.put_object(Bucket=name, Key="dir/a b+ü", Body=b"first")
        s3.put_object(Bucket="bucket", Key="dir/a b+ü", Body=b"second", Metadata={"m": "v"}, Tagging="t=1")
        s3.upload_fileobj(io.BytesIO(big), "bucket", "in-parts")
        s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "dir/a b+ü"})
        s3.put_bucket_tagging(Bucket="bucket", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
        s3.delete_objects(Bucket="emptied", Delete={"Objects": [{"Key": "dir/a b+ü"}]})
        s3.delete_object(Bucket="gone", Key="dir/a b+ü")
        s3.delete_bucket(Bucket="gone")
        before = contents(s3, "bucket")
        assert len(before) == 3
    for _ in range(2):  # what was read is kept for the next time too
        with server_of(database) as server:
            s3 = client(server, "s3")
            assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["bucket", "emptied"]
            assert contents(s3, "bucket") == before
            assert contents(s3, "emptied") == {}
            assert s3.head_object(Bucket="bucket", Key="dir/a b+ü")["Metadata"] == {"m": "v"}
            tags = s3.get_object_tagging(Bucket="bucket", Key="dir/a b+ü")["TagSet"]
            assert tags == [{"Key": "t", "Value": "1"}]
            assert s3.get_bucket_tagging(Bucket="bucket")["TagSet"] == [{"Key": "k", "Value": "v"}]


def test_logs_are_there_after_a_restart_however_old(database: Path) -> None:
    now = int(time.time() * 1000)
    with server_of(database) as server:
        logs = client(server, "logs")
        logs.create_log_group(logGroupName="/aws/g")
        for stream in ("j/1", "j/gone"):
            logs.create_log_stream(logGroupName="/aws/g", logStreamName=stream)
            for number in range(3):
                line = {"timestamp": now + number, "message": f"line {number}"}
                logs.put_log_events(logGroupName="/aws/g", logStreamName=stream, logEvents=[line])
        logs.delete_log_stream(logGroupName="/aws/g", logStreamName="j/gone")
    # As they are when the server is started again in a month: moto takes no lines that are older than 14 days.
    with sqlite3.connect(f"{database}-aws") as connection:
        connection.execute(
            "UPDATE requests SET body = CAST(replace(body, ?, ?) AS BLOB)", (str(now)[:7], str(now - 30 * DAY)[:7])
        )
    connection.close()
    with server_of(database) as server:
        logs = client(server, "logs")
        (stream,) = logs.describe_log_streams(logGroupName="/aws/g")["logStreams"]
        found = logs.get_log_events(logGroupName="/aws/g", logStreamName="j/1", startFromHead=True)["events"]
        assert stream["logStreamName"] == "j/1"
        assert [each["message"] for each in found] == ["line 0", "line 1", "line 2"]
        assert found[0]["timestamp"] < now - 29 * DAY


def test_credentials_given_after_a_restart_are_valid_whatever_was_imported_to_restore(
    database: Path, tmp_path: Path
) -> None:
    with server_of(database) as server:
        role = client(server, "iam").create_role(RoleName="mine", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        client(server, "lambda").create_function(
            FunctionName="f",
            Runtime="python3.12",
            Role=role,
            Handler="f.handler",
            Code={"ZipFile": zipped("f.py", "def handler(event, context): return 1")},
        )
    with sqlite3.connect(f"{database}-aws") as connection:
        connection.execute("UPDATE requests SET at = at - 864000")  # ten days ago
    connection.close()
    with serving(database, "scripted", log=tmp_path / "log") as emulator:  # a process that has imported nothing yet
        made = client(emulator.url, "iam").get_role(RoleName="mine")["Role"]["CreateDate"]
        given = client(emulator.url, "sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    assert made < datetime.now(UTC) - timedelta(days=9)
    assert given["Expiration"] > datetime.now(UTC)


def test_packages_roles_functions_apps_and_lineage_are_there_after_a_restart(database: Path) -> None:
    with server_of(database) as server:
        sagemaker, iam = client(server, "sagemaker"), client(server, "iam")
        sagemaker.create_model_package_group(ModelPackageGroupName="g")
        packages = [
            sagemaker.create_model_package(ModelPackageGroupName="g", ModelPackageDescription=text)["ModelPackageArn"]
            for text in ("one", "two")
        ]
        sagemaker.update_model_package(ModelPackageArn=packages[1], ModelApprovalStatus="Approved")
        made_at = sagemaker.describe_model_package(ModelPackageName=packages[0])["CreationTime"]
        role = iam.create_role(RoleName="mine", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        app = sagemaker.create_mlflow_app(Name="mine", ArtifactStoreUri="s3://b/a", RoleArn=role)["Arn"]
        client(server, "lambda").create_function(
            FunctionName="f",
            Runtime="python3.12",
            Role=role,
            Handler="lambda_function.handler",
            Code={"ZipFile": zipped("lambda_function.py", "def handler(event, context): return 1")},
            Environment={"Variables": {"A": "b"}},
        )
        artifact = sagemaker.create_artifact(ArtifactType="t", Source={"SourceUri": "u"})["ArtifactArn"]
    with server_of(database) as server:
        sagemaker, iam = client(server, "sagemaker"), client(server, "iam")
        listed = sagemaker.list_model_packages(ModelPackageGroupName="g", SortOrder="Ascending")
        assert [each["ModelPackageArn"] for each in listed["ModelPackageSummaryList"]] == packages
        assert sagemaker.describe_model_package(ModelPackageName=packages[1])["ModelApprovalStatus"] == "Approved"
        again = sagemaker.describe_model_package(ModelPackageName=packages[0])["CreationTime"]
        assert abs((again - made_at).total_seconds()) < 1
        assert iam.get_role(RoleName="mine")["Role"]["Arn"] == role
        function = client(server, "lambda").get_function(FunctionName="f")["Configuration"]
        assert (function["Handler"], function["Environment"]["Variables"]) == ("lambda_function.handler", {"A": "b"})
        assert sagemaker.describe_mlflow_app(Arn=app)["Name"] == "mine"
        assert sagemaker.describe_artifact(ArtifactArn=artifact)["ArtifactType"] == "t"
        package = sagemaker.create_model_package(ModelPackageGroupName="g")["ModelPackageArn"]
        assert package.endswith("/3")


def test_a_reset_forgets_it_all_but_the_default_role(database: Path) -> None:
    with server_of(database) as server:
        s3, iam = client(server, "s3"), client(server, "iam")
        make_bucket(s3)
        (role,) = iam.list_roles()["Roles"]
        httpx2.post(f"{server.url}/_emulator/reset").raise_for_status()
        assert s3.list_buckets()["Buckets"] == []
        assert iam.get_role(RoleName=role["RoleName"])["Role"]["Arn"] == role["Arn"]
    with server_of(database) as server:
        assert client(server, "s3").list_buckets()["Buckets"] == []


def test_one_servers_aws_is_not_the_next_ones_in_the_same_process(tmp_path: Path) -> None:
    with running_server() as server:
        make_bucket(client(server, "s3"))
    with running_server() as server:
        assert client(server, "s3").list_buckets()["Buckets"] == []


def test_a_server_that_is_not_asked_for_aws_makes_no_file(database: Path) -> None:
    with server_of(database) as server:
        httpx2.get(f"{server.url}/_emulator/info")
        client(server, "s3").list_buckets()
    assert not Path(f"{database}-aws").exists()


@pytest.mark.parametrize("content", [b"none of ours" * 1000, None])
def test_a_file_that_is_none_of_ours_is_named_and_left_alone(database: Path, content: bytes | None) -> None:
    path = Path(f"{database}-aws")
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        path.write_bytes(content)
    kept = path.read_bytes()
    with server_of(database) as server, pytest.raises(ClientError, match=path.name):
        client(server, "s3").list_buckets()
    assert path.read_bytes() == kept


def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_uploads(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    acknowledged: dict[str, bytes] = {}
    enough = threading.Event()

    def upload(url: str, worker: int) -> None:
        s3 = client(url, "s3")
        with suppress(BotoCoreError, ClientError):
            for number in range(10_000):
                key, content = f"{worker}/{number % 7}", f"{worker} {number} ".encode() * 20_000
                s3.put_object(Bucket="bucket", Key=key, Body=content)
                acknowledged[key] = content
                if len(acknowledged) >= 10:
                    enough.set()

    with serving(database, "scripted", log=tmp_path / "log") as emulator:
        make_bucket(client(emulator.url, "s3"))
        workers = [threading.Thread(target=upload, args=(emulator.url, worker)) for worker in range(3)]
        for worker in workers:
            worker.start()
        assert enough.wait(60)
        emulator.kill()
        for worker in workers:
            worker.join()
    with server_of(database) as server:
        found = contents(client(server, "s3"), "bucket")
    for key, content in acknowledged.items():
        # The upload after it may have been stored too, with nobody left to tell; none is there by half.
        number = int(content.split()[1])
        after = content.replace(b" %d " % number, b" %d " % (number + 7))
        assert found[key][0] in (content, after)


def test_an_object_that_is_too_large_for_the_file_is_not_kept_and_that_is_said(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("emulator.aws.kept.MAX_KEPT_BYTES", 100)
    with server_of(database) as server:
        s3 = client(server, "s3")
        make_bucket(s3)
        s3.put_object(Bucket="bucket", Key="small", Body=b"x" * 100)
        s3.put_object(Bucket="bucket", Key="large", Body=b"x" * 101)
    assert "s3://bucket/large is too large" in caplog.text
    with server_of(database) as server:
        s3 = client(server, "s3")
        assert list(contents(s3, "bucket")) == ["small"]
        refused(lambda: s3.get_object(Bucket="bucket", Key="large"), "NoSuchKey", 404)
