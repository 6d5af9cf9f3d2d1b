"""MLflow apps of SageMaker: names and ARNs for the one MLflow that this server leads to. moto 5.2.5 has none.

There is always one, so that a trainer that names none finds it.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from emulator.aws.hub import CREATED_AT
from emulator.aws.paging import paged
from emulator.aws.place import Place
from emulator.protocol.errors import ResourceNotFound, ValidationException
from emulator.store import now

#: What the documents on disk are of.
KIND = "mlflow-app"

DEFAULT_NAME = "local"

# ASSUMED: the version that an app says; the SDK wants 3.10 or later.
VERSION = "3.10.0"

_DELETED = "deleted"


async def create_mlflow_app(
    place: Place,
    *,
    name: str,
    artifact_store_uri: str,
    role_arn: str,
    kms_key_id: str | None,
    model_registration_mode: str | None,
    weekly_maintenance_window_start: str | None,
    account_default_status: str | None,
    default_domain_id_list: list[str] | None,
    tags: list[dict[str, str]] | None,  # noqa: ARG001
) -> dict[str, Any]:
    """Store an app; it is there at once. Raises ValidationException for a name that is taken."""
    apps = await _apps(place)
    if any(app["name"] == name for app in apps):
        raise ValidationException(f"There is an MLflow app {name} already")  # ASSUMED: the error and its wording
    app = {
        "arn": place.arn(f"mlflow-app/app-{uuid4().hex[:12].upper()}"),
        "name": name,
        "artifact_store_uri": artifact_store_uri,
        "role_arn": role_arn,
        "kms_key_id": kms_key_id,
        "model_registration_mode": model_registration_mode,
        "weekly_maintenance_window_start": weekly_maintenance_window_start,
        "account_default_status": account_default_status or "DISABLED",
        "default_domain_id_list": default_domain_id_list,
        "creation_time": now(),
        "last_modified_time": now(),
    }
    await place.in_thread(place.disk.put, KIND, app["arn"], app)
    return {"arn": app["arn"]}


async def describe_mlflow_app(place: Place, *, arn: str) -> dict[str, Any]:
    """An app. Raises ResourceNotFound."""
    return {**await _find(place, arn), "mlflow_version": VERSION, "status": "Created"}


async def update_mlflow_app(place: Place, *, arn: str, **members: Any) -> dict[str, Any]:
    """Change what is given of an app. Raises ResourceNotFound."""
    app = await _find(place, arn)
    app |= {name: value for name, value in members.items() if value is not None}
    app["last_modified_time"] = now()
    await place.in_thread(place.disk.put, KIND, arn, app)
    return {"arn": arn}


async def delete_mlflow_app(place: Place, *, arn: str) -> dict[str, Any]:
    """Forget an app; what MLflow itself holds stays. Raises ResourceNotFound."""
    await _find(place, arn)
    if arn == _default(place)["arn"]:
        await place.in_thread(place.disk.put, KIND, arn, {_DELETED: True})
    else:
        await place.in_thread(place.disk.remove, KIND, arn)
    return {"arn": arn}


async def list_mlflow_apps(
    place: Place,
    *,
    created_after: int | None,
    created_before: int | None,
    status: str | None,
    mlflow_version: str | None,
    default_for_domain_id: str | None,
    account_default_status: str | None,
    sort_by: str | None,
    sort_order: str | None,
    next_token: str | None,
    max_results: int | None,
) -> dict[str, Any]:
    """The apps. Raises ValidationException."""
    apps = [
        app
        for app in await _apps(place)
        if status in (None, "Created")
        and mlflow_version in (None, VERSION)
        and account_default_status in (None, app["account_default_status"])
        and (default_for_domain_id is None or default_for_domain_id in (app["default_domain_id_list"] or ()))
        and (created_after is None or app["creation_time"] > created_after)
        and (created_before is None or app["creation_time"] < created_before)
    ]
    key = "name" if sort_by == "Name" else "creation_time"
    apps.sort(key=lambda app: app[key], reverse=sort_order == "Descending")
    question = {
        "after": created_after,
        "before": created_before,
        "status": status,
        "version": mlflow_version,
        "domain": default_for_domain_id,
        "default": account_default_status,
        "by": sort_by,
        "order": sort_order,
    }
    page, token = paged(question, apps, max_results or 100, next_token)
    return {
        "summaries": [{**app, "mlflow_version": VERSION, "status": "Created"} for app in page],
        "next_token": token,
    }


async def create_presigned_mlflow_app_url(
    place: Place,
    *,
    arn: str,
    expires_in_seconds: int | None,  # noqa: ARG001
    session_expiration_duration_in_seconds: int | None,  # noqa: ARG001
) -> dict[str, Any]:
    """Where MLflow's pages are. Raises ResourceNotFound, ValidationException where there is no MLflow."""
    await _find(place, arn)
    url = await place.mlflow_url()
    if url is None:
        why = "this server was started without MLflow (--mlflow off, or no extra mlflow)"
        raise ValidationException(f"{arn} leads nowhere: {why}")
    return {"authorized_url": f"{url.rstrip('/')}/auth?authToken=local"}


def _default(place: Place) -> dict[str, Any]:
    return {
        "arn": place.arn("mlflow-app/app-local"),
        "name": DEFAULT_NAME,
        "artifact_store_uri": f"s3://sagemaker-{place.region}-{place.account}/mlflow-artifacts",
        "role_arn": place.role_arn,
        "account_default_status": "ENABLED",
        "default_domain_id_list": None,
        "creation_time": CREATED_AT,
        "last_modified_time": CREATED_AT,
    }


async def _apps(place: Place) -> list[dict[str, Any]]:
    stored = dict(await place.in_thread(place.disk.documents, KIND))
    default = _default(place)
    found = {default["arn"]: default} | stored
    return [app for app in found.values() if _DELETED not in app]


async def _find(place: Place, arn: str) -> dict[str, Any]:
    found = next((app for app in await _apps(place) if app["arn"] == arn), None)
    if found is None:
        raise ResourceNotFound(f"There is no MLflow app {arn}")
    return found
