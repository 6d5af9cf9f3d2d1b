"""The environment variables by which clients find the emulator, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from emulator.settings import Settings
from emulator.testing.rollout import API_KEY

#: What would lead a client elsewhere, or have it show credentials that are somebody's.
REMOVED = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_BEARER_TOKEN_SAGEMAKER",
)

_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def credentials(settings: Settings) -> tuple[str, str]:
    """An access key's id and secret that the server takes."""
    if settings.key_pairs:
        key_id, secret, *_ = settings.key_pairs[0].split(":")
        return key_id, secret
    return "local", "local"


def variables(url: str, settings: Settings) -> dict[str, str | None]:
    """What an agent's clients read; None: it must not be set."""
    key_id, secret = credentials(settings)
    return (
        dict.fromkeys(REMOVED)
        | {
            "AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME": url,
            "RFT_RUNTIME_ENDPOINT": url,
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": API_KEY,
            "AWS_REGION": settings.region,
            "AWS_DEFAULT_REGION": settings.region,
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
        }
        | _no_proxy(os.environ)
    )


@contextmanager
def environment(given: Mapping[str, str | None]) -> Iterator[None]:
    """Have these variables so while the block runs; then all are as they were."""
    before = {name: os.environ.get(name) for name in given}
    _set(given)
    try:
        yield
    finally:
        _set(before)


def _set(given: Mapping[str, str | None]) -> None:
    for name, value in given.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _no_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Where a proxy is configured, what keeps loopback from it."""
    if not any(environ.get(name) for name in _PROXIES):
        return {}
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if exceptions == "*":
        return {}
    value = ",".join(part for part in (exceptions, "127.0.0.1", "localhost") if part)
    return {"no_proxy": value, "NO_PROXY": value}
