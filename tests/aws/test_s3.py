"""S3: both styles of addressing, URLs signed in advance, names of all kinds, large uploads."""

from __future__ import annotations

import http.client
import io
from urllib.parse import urlsplit

import httpx2
import pytest
from botocore.config import Config
from botocore.session import Session

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.aws.conftest import KEY, REGION, SECRET, client, make_bucket, refused

NAME = "a b/ü+%2F//x/../y.txt"
PLAIN = "a b/ü+%2F.txt"  #: whose URL no client puts in order


def over_http(server: Server, method: str, url: str, host: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request to a server under another name, as a proxy or a name server would bring it."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, target, body, {"Host": host})
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


def test_an_object_has_what_it_was_given_whatever_its_name(aws: Server) -> None:
    s3 = client(aws, "s3", s3={"addressing_style": "path"})
    make_bucket(s3, "names")
    s3.put_object(Bucket="names", Key=NAME, Body=b"content", Metadata={"one": "1"}, ContentType="text/plain")
    found = s3.get_object(Bucket="names", Key=NAME)
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"content", {"one": "1"}, "text/plain")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="names")["Contents"]] == [NAME]
    assert s3.head_object(Bucket="names", Key=NAME)["ContentLength"] == len(b"content")


@pytest.mark.parametrize("name", ["sample", "metrics", "update-reward", "v1-models"])
def test_a_bucket_may_be_named_as_a_path_of_ours(aws: Server, name: str) -> None:
    s3 = client(aws, "s3")
    make_bucket(s3, name)
    s3.put_object(Bucket=name, Key="k", Body=b"1")
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 1
    s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "k"}]})
    s3.delete_bucket(Bucket=name)
    refused(lambda: s3.head_bucket(Bucket=name), "404", 404)


@pytest.mark.parametrize("domain", ["s3.us-west-2.amazonaws.com", "s3.amazonaws.com", "localhost", "s3.localhost"])
def test_a_buckets_name_may_be_in_the_host(aws: Server, domain: str) -> None:
    s3 = client(aws, "s3")
    name = f"virtual.{domain}".replace(".", "-")
    make_bucket(s3, name)
    host = f"{name}.{domain}:{urlsplit(aws.url).port}"
    signer = client(f"http://{host.removeprefix(f'{name}.')}", "s3", s3={"addressing_style": "virtual"})
    parameters = {"Bucket": name, "Key": "a/b.txt"}
    url = signer.generate_presigned_url("put_object", Params=parameters)
    assert urlsplit(url).netloc == host
    assert over_http(aws, "PUT", url, host, b"there")[0] == 200
    assert over_http(aws, "GET", signer.generate_presigned_url("get_object", Params=parameters), host) == (
        200,
        b"there",
    )
    assert s3.get_object(**parameters)["Body"].read() == b"there"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_url_that_was_signed_in_advance_works_without_more(aws: Server, version: str) -> None:
    s3 = client(aws, "s3", signature_version=version)
    make_bucket(s3, f"presigned-{version}")
    parameters = {"Bucket": f"presigned-{version}", "Key": PLAIN}
    put = httpx2.put(s3.generate_presigned_url("put_object", Params=parameters), content=b"by URL")
    assert put.status_code == 200
    assert httpx2.get(s3.generate_presigned_url("get_object", Params=parameters)).content == b"by URL"


def test_a_form_that_was_signed_in_advance_uploads(aws: Server) -> None:
    s3 = client(aws, "s3")
    make_bucket(s3, "form")
    form = s3.generate_presigned_post("form", "a/b")
    answer = httpx2.post(form["url"], data=form["fields"], files={"file": ("name", b"by form")})
    assert answer.status_code == 204
    assert s3.get_object(Bucket="form", Key="a/b")["Body"].read() == b"by form"


def test_objects_may_be_larger_than_other_requests() -> None:
    content = bytes(range(256)) * 4096 * 9  # 9 MiB: beyond what is held in memory
    with running_server(Settings(port=0, durability="memory", max_request_bytes=1000)) as server:
        s3 = client(server, "s3")
        make_bucket(s3)
        s3.put_object(Bucket="bucket", Key="whole", Body=content)
        s3.upload_fileobj(io.BytesIO(content), "bucket", "in-parts")
        for key in ("whole", "in-parts"):
            assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == content
        assert s3.get_object(Bucket="bucket", Key="whole", Range="bytes=1000-1009")["Body"].read() == content[1000:1010]
        logs = client(server, "logs")
        message = refused(lambda: logs.create_log_group(logGroupName="/" + "g" * 1000), "ValidationException")
        assert "larger than 1000 bytes" in message


def test_an_upload_in_chunks_is_taken(aws: Server) -> None:
    s3 = client(aws, "s3")
    make_bucket(s3, "chunked")
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "chunked", "Key": "k"})
    assert httpx2.put(url, content=iter([b"one ", b"two"])).status_code == 200
    assert s3.get_object(Bucket="chunked", Key="k")["Body"].read() == b"one two"


def test_with_strict_auth_signatures_are_verified_for_every_service() -> None:
    settings = Settings(port=0, durability="memory", auth="strict", key_pairs=(f"{KEY}:{SECRET}",))
    with running_server(settings) as server:
        s3 = client(server, "s3", signature_version="s3v4")
        make_bucket(s3)
        s3.put_object(Bucket="bucket", Key=NAME, Body=b"mine")
        s3.put_object(Bucket="bucket", Key=PLAIN, Body=b"mine")
        s3.upload_fileobj(io.BytesIO(b"x" * (9 << 20)), "bucket", "in-parts")
        where = {"Bucket": "bucket", "Key": PLAIN}
        assert httpx2.get(s3.generate_presigned_url("get_object", Params=where)).content == b"mine"
        calls = {
            "s3": "list_buckets",
            "sts": "get_caller_identity",
            "iam": "list_roles",
            "logs": "describe_log_groups",
            "sagemaker": "list_model_package_groups",
        }
        for service, operation in calls.items():
            getattr(client(server, service), operation)()
            other = client(server, service, secret="another-secret")
            denied = "AccessDeniedException" if service in ("logs", "sagemaker") else "AccessDenied"
            refused(getattr(other, operation), denied, 403)
        forged = client(server, "s3", secret="another-secret", signature_version="s3v4")
        assert httpx2.get(forged.generate_presigned_url("get_object", Params=where)).status_code == 403
        late = s3.generate_presigned_url("get_object", Params=where).replace("X-Amz-Expires=3600", "X-Amz-Expires=7200")
        assert httpx2.get(late).status_code == 403
        version_2 = client(server, "s3", signature_version="s3").generate_presigned_url("get_object", Params=where)
        assert "s3v4" in httpx2.get(version_2).text


def test_a_signature_for_another_region_is_refused_when_they_are_verified() -> None:
    settings = Settings(port=0, durability="memory", auth="strict", key_pairs=(f"{KEY}:{SECRET}",))
    with running_server(settings) as server:
        elsewhere = Session().create_client(
            "logs",
            region_name="eu-west-1",
            endpoint_url=server.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )
        assert REGION != "eu-west-1"
        refused(elsewhere.describe_log_groups, "AccessDeniedException", 403)
