"""Who may call: signatures and tokens by `--auth`, jobs by `--account`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from starlette.types import Scope

from emulator.protocol.endpoint import Authenticate, Authorize
from emulator.protocol.errors import AccessDeniedException
from emulator.settings import InvalidSetting, Settings

#: Checks who sent a request for a service; raises AccessDeniedException. Takes scope, service, and SHA-256 of the body.
Verify = Callable[[Scope, str, bytes], None]

#: Services without a region: requests for them are signed for the one where they are at home.
_GLOBAL = frozenset({"cloudfront", "iam", "route53", "sts"})


@dataclass(frozen=True, slots=True)
class Admission:
    """What is asked of requests before they are served."""

    authenticate: Authenticate
    authorize: Authorize
    verify: Verify | None  #: None: nobody has to prove anything

    @classmethod
    def of(cls, settings: Settings) -> Admission:
        """Raises InvalidSetting for key pairs that are none."""
        verify = _verification(settings)
        return cls(_nobody_asks if verify is None else _authentication(verify), _authorization(settings), verify)


def _nobody_asks(_scope: Scope, _body: bytes) -> None:
    """Whoever sends it, with or without credentials."""


def _authentication(verify: Verify) -> Authenticate:
    return lambda scope, body: verify(scope, "sagemaker", sha256(body).hexdigest().encode())


def _verification(settings: Settings) -> Verify | None:
    if settings.auth == "lenient":
        return None
    from emulator.protocol.auth import authenticate, parse_key_pair

    try:
        pairs = [parse_key_pair(text) for text in settings.key_pairs]
    except ValueError as error:
        raise InvalidSetting(f"key_pairs: {error}") from None
    key_pairs = {pair.access_key_id: pair for pair in pairs}

    def verify(scope: Scope, service: str, payload_hash: bytes) -> None:
        authenticate(
            method=scope["method"],
            raw_path=scope["raw_path"],
            query_string=scope["query_string"],
            headers=scope["headers"],
            payload_hash=payload_hash,
            key_pairs=key_pairs,
            region=None if service in _GLOBAL else settings.region,
            now=datetime.now(UTC),
            service=service,
        )

    return verify


def _authorization(settings: Settings) -> Authorize:
    if settings.auth == "lenient" or settings.account is None:
        return lambda _arguments: None
    from emulator.job import JobArn

    def check(arguments: Mapping[str, Any]) -> None:
        if "job_arn" in arguments and JobArn.parse(arguments["job_arn"]).account != settings.account:
            # ASSUMED: the wording; OBSERVED: the error.
            raise AccessDeniedException(f"The caller may not use {arguments['job_arn']}")

    return check
