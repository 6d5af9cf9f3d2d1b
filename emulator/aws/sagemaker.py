"""The operations of SageMaker's that are ours, by name; those of jobs are in `emulator.operations`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from emulator.aws import hub, lineage, mlflow_apps

Operation = Callable[..., Awaitable[dict[str, Any]]]


def _lineage_operations() -> dict[str, Operation]:
    table: dict[str, Operation] = {}
    for kind, name, plural in (
        (lineage.ARTIFACT, "Artifact", "Artifacts"),
        (lineage.ACTION, "Action", "Actions"),
        (lineage.CONTEXT, "Context", "Contexts"),
    ):
        table |= {
            f"Create{name}": partial(lineage.create, kind),
            f"Describe{name}": partial(lineage.describe, kind),
            f"Update{name}": partial(lineage.update, kind),
            f"Delete{name}": partial(lineage.delete, kind),
            f"List{plural}": partial(lineage.listing, kind),
        }
    return table


#: Each takes a `Place` and the members of its input, and returns those of its output.
OPERATIONS: dict[str, Operation] = {
    "DescribeHubContent": hub.describe_hub_content,
    "ListHubContents": hub.list_hub_contents,
    "CreateMlflowApp": mlflow_apps.create_mlflow_app,
    "DescribeMlflowApp": mlflow_apps.describe_mlflow_app,
    "UpdateMlflowApp": mlflow_apps.update_mlflow_app,
    "DeleteMlflowApp": mlflow_apps.delete_mlflow_app,
    "ListMlflowApps": mlflow_apps.list_mlflow_apps,
    "CreatePresignedMlflowAppUrl": mlflow_apps.create_presigned_mlflow_app_url,
    **_lineage_operations(),
    "AddAssociation": lineage.add_association,
    "DeleteAssociation": lineage.delete_association,
    "ListAssociations": lineage.list_associations,
}
