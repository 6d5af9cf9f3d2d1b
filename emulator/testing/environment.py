"""The environment variables by which clients find the emulator, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from emulator.offline.environment import REMOVED, credentials, no_proxy, set_variables
from emulator.settings import Settings
from emulator.testing.rollout import API_KEY


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
        | no_proxy(os.environ)
    )


@contextmanager
def environment(given: Mapping[str, str | None]) -> Iterator[None]:
    """Have these variables so while the block runs; then all are as they were."""
    before = {name: os.environ.get(name) for name in given}
    set_variables(given)
    try:
        yield
    finally:
        set_variables(before)
