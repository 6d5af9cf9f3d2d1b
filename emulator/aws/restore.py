"""Tell moto again what was kept. Written for moto 5.2.5: objects and log events are put where it has them."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from emulator.aws.disk import Disk, Kept
from emulator.aws.kept import CHECKSUM
from emulator.aws.moto_app import Moto
from emulator.aws.request import Request
from emulator.protocol.errors import AWSError

log = logging.getLogger(__name__)

#: Of which something is kept.
SERVICES = ("iam", "lambda", "logs", "s3", "sagemaker")

#: moto's time is the process's, and there may be several servers in it.
_one_restores = threading.Lock()

Events = dict[tuple[str, str, str], list[dict[str, Any]]]


def restore(disk: Disk, moto: Moto) -> None:
    """Give moto what is kept; what it does not take any more is left out, with a warning. Raises UnreadableFile."""
    if disk.is_empty:
        return
    began_at, count = perf_counter(), 0
    events: Events = {}
    for service in SERVICES:
        moto.backend(service, "aws" if service in ("s3", "iam") else "us-west-2")  # imports its modules
    with _one_restores, _clock() as clock:
        for kept in disk.requests():
            clock.now = datetime.fromtimestamp(kept.at, UTC).replace(tzinfo=None)
            count += 1
            try:
                _restore(moto, kept, events)
            except Exception as error:
                log.warning("%s is lost: %s", kept.about, error)
    for (region, group, stream), lines in events.items():
        try:
            # Not by way of PutLogEvents, which takes none that are older than 14 days.
            moto.backend("logs", region).groups[group].put_log_events(stream, lines)
        except Exception as error:
            log.warning("the lines of %s %s are lost: %s", group, stream, error)
    log.info("what is kept of AWS (%d entries) was read in %.2f s", count, perf_counter() - began_at)


def _restore(moto: Moto, kept: Kept, events: Events) -> None:
    head = kept.head
    if "object" in head:
        _restore_object(moto, kept)
        return
    fields: dict[str, str] = head["headers"]
    if fields.get("x-amz-target", "").endswith(".PutLogEvents"):
        given = json.loads(kept.body)
        place = (head["region"], given["logGroupName"], given["logStreamName"])
        events.setdefault(place, []).extend(given["logEvents"])
        return
    request = Request.of_ours(
        head["service"],
        head["region"],
        head["method"],
        head["path"],
        query=head["query"].encode("latin-1"),
        headers=fields,
        body=kept.body,
    )
    try:
        reply = moto.call(request)
    except AWSError as error:
        raise ValueError(error.message) from error
    if reply.status >= 300:
        raise ValueError(f"moto answers {reply.status}: {reply.body[:200].decode('utf-8', 'replace')}")


def _restore_object(moto: Moto, kept: Kept) -> None:
    head = kept.head
    backend = moto.backend("s3", "aws")
    made = backend.put_object(
        head["bucket"],
        head["object"],
        kept.body,
        storage=head["storage"],
        etag=head["etag"],
        disable_notification=True,
    )
    for name in CHECKSUM:
        setattr(made, name, head["checksum"][name])
    made.set_metadata(head["metadata"], replace=False)
    if head["tags"]:
        backend.put_object_tagging(made, head["tags"])


class _Clock:
    now = datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def _clock() -> Iterator[_Clock]:
    """What moto takes for the time, so that things are as old as they are. It asks a function in each module."""
    from moto.core.utils import utcnow as theirs

    clock = _Clock()

    def ours() -> datetime:
        return clock.now

    _have_asked(theirs, ours)
    try:
        yield clock
    finally:
        _have_asked(ours, theirs)  # those too that were imported meanwhile


def _have_asked(before: object, after: object) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("moto.") and vars(module).get("utcnow") is before:
            module.utcnow = after  # type: ignore[attr-defined]
