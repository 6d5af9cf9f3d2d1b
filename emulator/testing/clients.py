"""Clients of AWS's own SDK, ready to use; boto3 itself comes with the agent, not with the emulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emulator.offline.environment import credentials
from emulator.settings import Settings

SERVICE = "sagemakerjobruntime"


class MissingPackage(ImportError):
    """Something is asked for that another package makes; the message says which, and how to install it."""


def boto3_client(url: str, settings: Settings) -> Any:
    """A client of the emulator. Raises MissingPackage."""
    try:
        import boto3
    except ImportError:
        raise MissingPackage(
            "job_runtime.client is a boto3 client, and boto3 is not installed: pip install boto3"
        ) from None
    key_id, secret = credentials(settings)
    return boto3.client(
        SERVICE,
        endpoint_url=url,
        region_name=settings.region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )


class DefaultSession:
    """boto3's default session, as each test of one emulator finds it: with the credentials that lead there.

    To make one takes milliseconds, so it is one for all, made here: what a test puts in its place goes with that test.
    """

    def __init__(self) -> None:
        self._session: Any = None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Have `boto3.client` use it while the block runs, and then what it used before."""
        boto3: Any = sys.modules.get("boto3")
        before = None
        if boto3 is not None:
            if self._session is None:
                self._session = boto3.Session()
                self._session.get_credentials()  # now: it keeps the first that it finds
            before, boto3.DEFAULT_SESSION = boto3.DEFAULT_SESSION, self._session
        try:
            yield
        finally:
            boto3 = sys.modules.get("boto3")
            if boto3 is not None:
                boto3.DEFAULT_SESSION = before
