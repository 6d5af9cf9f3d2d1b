"""Where clients run: the variables that they see, and the environments of those that `.venv` cannot hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients.rollouts import KEY_ID, REGION, SECRET

ENVIRONMENTS = Path(__file__).parents[2] / ".environments"

#: What may not leak from outside into a client: it could change where it goes, and as whom.
_FOREIGN = ("AWS_", "BOTO", "OPENAI_", "RFT_", "SAGEMAKER_", "LANGSMITH_", "LANGCHAIN_", "OTEL_", "MLFLOW_")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def client_variables() -> dict[str, str]:
    """A client's environment variables: dummy credentials, and nothing that it would have to look up."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name.lower() not in _PROXIES
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def program(environment: str, name: str) -> Path:
    """A program of an environment that `scripts/build_clients.sh` builds; without it the test fails, and says why."""
    path = ENVIRONMENTS / environment / "bin" / name
    if not path.exists():
        pytest.fail(f"{path} is missing: run `make environments`", pytrace=False)
    return path
