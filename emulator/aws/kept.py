"""Which requests are kept, to be told to moto again. Written for moto 5.2.5, which keeps nothing itself but a log of
all requests (its recorder): that grows with each, has bodies of objects that were overwritten since, and uploads in
parts fail when it is replayed, as their ids are random.

* S3: buckets with their settings, and of each object what there is now: one row an object.
* Logs: groups, streams, events.
* SageMaker: model package groups, model packages and pipelines, with their tags.
* IAM: roles and policies. Lambda: functions.
"""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC
from typing import Any
from xml.etree import ElementTree as ET

from emulator.aws.disk import Disk, Kept
from emulator.aws.moto_app import Moto
from emulator.aws.request import Reply, Request, signed_as

log = logging.getLogger(__name__)

#: The largest object that is kept: SQLite's own limit is 1 GB.
MAX_KEPT_BYTES = 512 * 1024 * 1024

#: Operations that are kept one after the other, by service. Few and small, whatever else happens.
_IN_ORDER = {
    "sagemaker": re.compile(r"(Create|Update|Delete)(ModelPackage(Group)?|Pipeline)|AddTags|DeleteTags"),
    "iam": re.compile(
        r"(Create|Update|Delete|Tag|Untag)(Role|Policy|AssumeRolePolicy|RoleDescription)"
        r"|(Put|Delete|Attach|Detach)RolePolicy|(Create|Delete|SetDefault)PolicyVersion"
    ),
    "logs": re.compile(r"CreateLogGroup|CreateLogStream|PutLogEvents|PutRetentionPolicy|DeleteRetentionPolicy"),
}
_LAMBDA = re.compile(r"/\d{4}-\d{2}-\d{2}/(functions|tags)\b(?!.*/invocations)")

#: Parameters of an S3 URL that do not name a setting of a bucket.
_NO_SETTING = frozenset({"x-id", "delete", "uploads", "uploadId", "partNumber"})

#: What moto knows of an object's checksum.
CHECKSUM = ("checksum_algorithm", "checksum_value", "checksum_type", "checksum_parts")

_READING = ("GET", "HEAD", "OPTIONS")


def is_change(request: Request) -> bool:
    """Whether a request may change what is kept; such ones are served one after the other."""
    if request.service == "s3":
        return request.method not in _READING
    if request.service == "lambda":
        return request.method not in _READING and _LAMBDA.match(request.path) is not None
    of_service = _IN_ORDER.get(request.service)
    if of_service is None:
        return False
    return of_service.fullmatch(request.operation) is not None or request.operation.startswith("DeleteLog")


def keep(disk: Disk, moto: Moto, request: Request, reply: Reply) -> None:
    """Keep what a request has changed, now that moto has served it."""
    if reply.status >= 300 or not is_change(request):
        return
    if request.service == "s3":
        _keep_s3(disk, moto, request)
    elif request.service == "logs":
        _keep_logs(disk, request)
    else:
        disk.keep(_as_it_was(request, request.service), instead=False)


def _as_it_was(request: Request, about: str) -> Kept:
    fields = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in request.headers
        if name.startswith((b"content-type", b"content-encoding", b"x-amz-")) and name != b"x-amz-security-token"
    }
    head = {
        "service": request.service,
        "region": request.region,
        "method": request.method,
        "path": request.path,
        "query": request.query.decode("latin-1"),
        "headers": fields | {"authorization": signed_as(request.service, request.region)},
    }
    return Kept(about, time.time(), head, request.body)


def _keep_logs(disk: Disk, request: Request) -> None:
    given = json.loads(request.body)
    group = f"logs\n{request.region}\n{given.get('logGroupName')}\n"
    stream = given.get("logStreamName")
    if request.operation == "DeleteLogGroup":
        disk.drop_below(group)
    elif request.operation == "DeleteLogStream":
        disk.drop(group + stream)
    else:
        disk.keep(_as_it_was(request, group + (stream or "")), instead=False)


def _keep_s3(disk: Disk, moto: Moto, request: Request) -> None:
    bucket, key = request.bucket_and_key
    if key:
        if "partNumber" not in request.parameters and "uploads" not in request.parameters:
            _keep_object(disk, moto, bucket, key)
    elif request.method == "POST":
        keys = _deleted(request.body) if "delete" in request.parameters else list(_objects(moto, bucket))
        for each in keys:
            _keep_object(disk, moto, bucket, each)
    elif settings := sorted(request.parameters.keys() - _NO_SETTING):
        about = f"s3/{bucket}?{settings[0]}"
        if request.method == "DELETE":
            disk.drop(about)
        else:
            disk.keep(_as_it_was(request, about), instead=True)
    elif request.method == "DELETE":
        disk.drop(f"s3/{bucket}")
        disk.drop_below(f"s3/{bucket}/")
        disk.drop_below(f"s3/{bucket}?")
    elif not disk.has(f"s3/{bucket}"):  # to create it again changes nothing
        disk.keep(_as_it_was(request, f"s3/{bucket}"), instead=True)


def _objects(moto: Moto, bucket: str) -> Any:
    return moto.backend("s3", "aws").get_bucket(bucket).keys


def _deleted(body: bytes) -> list[str]:
    """The keys of a DeleteObjects, which moto has read already."""
    return [each.text or "" for each in ET.fromstring(body).iter() if each.tag.rpartition("}")[2] == "Key"]  # noqa: S314


def _keep_object(disk: Disk, moto: Moto, bucket: str, key: str) -> None:
    """Keep an object as it is now."""
    about = f"s3/{bucket}/{key}"
    backend = moto.backend("s3", "aws")
    found = backend.get_object(bucket, key)
    if found is None:
        disk.drop(about)
        return
    if found.contentsize > MAX_KEPT_BYTES:
        log.warning("s3://%s/%s is too large to outlive the server: %d bytes", bucket, key, found.contentsize)
        disk.drop(about)
        return
    head = {
        "object": key,
        "bucket": bucket,
        "etag": found.etag.strip('"'),
        "metadata": dict(found.metadata),
        "storage": found._storage_class,
        "checksum": {name: getattr(found, name) for name in CHECKSUM},
        "tags": backend.tagger.get_tag_dict_for_resource(found.arn),
    }
    modified_at = found.last_modified.replace(tzinfo=UTC).timestamp()  # moto's times are naive, and UTC
    disk.keep(Kept(about, modified_at, head, found.value), instead=True)
