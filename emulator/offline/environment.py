"""The variables by which programs find an emulator: boto3, the SageMaker SDK, MLflow's plugin, the OpenAI client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emulator.settings import ROLE_NAME, Settings

#: What would lead a client elsewhere, or have it show credentials that are somebody's.
REMOVED = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_BEARER_TOKEN_SAGEMAKER",
)

#: Of single services: an endpoint wins over AWS_ENDPOINT_URL, a token over keys.
_ONE_SERVICE = ("AWS_ENDPOINT_URL_", "AWS_BEARER_TOKEN_")

#: What a user's AWS_CONFIG_FILE may say, and would lead past AWS_ENDPOINT_URL or not go together with it.
_NOT = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")

_PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")

#: Where programs look for the certificates that they believe: botocore, requests, OpenSSL (and httpx), curl, Node.js.
BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An emulator, as its clients have to know it."""

    url: str
    region: str
    account: str
    keys: tuple[str, str]  #: an access key's id and secret that it takes

    @property
    def bucket(self) -> str:
        """The SDK's default bucket."""
        return f"sagemaker-{self.region}-{self.account}"

    @property
    def role_arn(self) -> str:
        """The role of jobs."""
        return f"arn:aws:iam::{self.account}:role/{ROLE_NAME}"


def credentials(settings: Settings) -> tuple[str, str]:
    """An access key's id and secret that the server takes."""
    if settings.key_pairs:
        key_id, secret, *_ = settings.key_pairs[0].split(":")
        return key_id, secret
    return "local", "local"


def no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Where a proxy is configured, what keeps loopback from it."""
    if not any(environment.get(name) for name in _PROXIES):
        return {}
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if exceptions == "*":
        return {}
    value = ",".join(part for part in (exceptions, "127.0.0.1", "localhost") if part)
    return {"no_proxy": value, "NO_PROXY": value}


def client_variables(
    place: Place, environment: Mapping[str, str], configuration: Path | None = None
) -> dict[str, str | None]:
    """What a program's clients read; None: it must not be set. `configuration`: where the SDK's file is."""
    removed = [*REMOVED, *(name for name in environment if name.startswith(_ONE_SERVICE))]
    key_id, secret = place.keys
    variables: dict[str, str | None] = {
        **dict.fromkeys(removed),
        **dict.fromkeys(_NOT, "false"),
        "AWS_ENDPOINT_URL": place.url,
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": place.region,  # the SDK's
        "AWS_DEFAULT_REGION": place.region,  # boto3's
        "AWS_EC2_METADATA_DISABLED": "true",
        "RFT_RUNTIME_ENDPOINT": place.url,
        "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": f"{place.url}/_emulator/mlflow",
        "OPENAI_BASE_URL": f"{place.url}/v1",
        "OPENAI_API_KEY": "local",
        **no_proxy(environment),
    }
    if configuration is not None:
        variables["SAGEMAKER_USER_CONFIG_OVERRIDE"] = str(configuration)
    return variables


def set_variables(given: Mapping[str, str | None]) -> None:
    """Have this process's variables so; None: not set."""
    for name, value in given.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def enclosing_variables(proxy: str, bundle: Path) -> dict[str, str]:
    """What leads a program's clients to a proxy, whatever host they ask for, and has them believe its certificates."""
    here = "127.0.0.1,localhost,::1"
    return {
        **dict.fromkeys(_PROXIES, proxy),
        "no_proxy": here,
        "NO_PROXY": here,
        **dict.fromkeys(BUNDLES, str(bundle)),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def sdk_configuration(place: Place) -> str:
    """The SageMaker SDK's configuration file: no telemetry, and a bucket and a role that it need not look for."""
    import yaml  # few write it

    modules = {"TelemetryOptOut": True, "Session": {"DefaultS3Bucket": place.bucket}}
    document = {
        "SchemaVersion": "1.0",
        "SageMaker": {"PythonSDK": {"Modules": modules}, "TrainingJob": {"RoleArn": place.role_arn}},
    }
    return yaml.safe_dump(document, sort_keys=False)
