"""`job-runtime-local job`: the jobs of a running emulator: list, show, logs, stop, delete, create."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emulator.commands import Refused, add_config_option
from emulator.commands.aws_clients import Clients
from emulator.commands.endpoint import add_endpoint_option
from emulator.job import Category, JobArn
from emulator.terminal import make_console, prepare_output, visible

SCHEMA_VERSION = "1.0.0"

#: Statuses of a job that nothing more comes of.
ENDED = frozenset({"Completed", "Failed", "Stopped"})

#: Seconds between two looks at a job.
LOOK = 1.0

EPILOG = """\
NAME is a job's name or ARN. FILE holds a JobConfigDocument, or all of a CreateJob request. All of these ask a running
emulator as boto3 would. The exit status of what waits is 0 for a job that completed, 1 for another.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = _action(actions, "list", "a table of jobs, newest first")
    listing.add_argument("--status", metavar="STATUS", help="only those: InProgress, Completed, Failed, …")
    listing.add_argument("--name-contains", metavar="TEXT", help="only those whose names contain it")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: 50)")
    listing.set_defaults(run=_list)
    show = _action(actions, "show", "one job: status, progress, what has happened")
    show.add_argument("--wait", action="store_true", help="follow it to its end")
    show.set_defaults(run=_show)
    logs = _action(actions, "logs", "a job's log")
    logs.add_argument("-f", "--follow", action="store_true", help="until the job ends")
    logs.set_defaults(run=_logs)
    stop = _action(actions, "stop", "have a job end, and keep what there is")
    stop.set_defaults(run=_stop)
    delete = _action(actions, "delete", "forget a job that has ended; its trajectories stay")
    delete.set_defaults(run=_delete)
    create = _action(actions, "create", "create a job, of a JobConfigDocument or a whole CreateJob request")
    create.add_argument("-f", "--file", type=Path, required=True, metavar="FILE", help="its document, JSON")
    create.add_argument("--name", metavar="NAME", help="(default: of the request, else the category and the time)")
    create.add_argument("--role", metavar="ARN", help="(default: of the request, else the emulator's)")
    create.add_argument("--wait", action="store_true", help="follow it to its end")
    create.set_defaults(run=_create)
    for each in (show, logs, stop, delete):
        each.add_argument("name", metavar="NAME", help="a job's name, or its ARN")
    listing.add_argument("--json", action="store_true", help="JSON Lines in place of a table")
    for each in (show, create):
        each.add_argument("--json", action="store_true", help="JSON")
    for each in (listing, show, logs, stop, delete, create):
        each.add_argument("--category", choices=[str(category) for category in Category], help="(default: both)")
        add_endpoint_option(each)
        add_config_option(each)


def _action(actions: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    return parser


def _list(given: argparse.Namespace) -> int:
    if given.limit < 1:
        raise Refused(f"--limit: {given.limit} is less than 1")
    clients = Clients(given)
    filters = {"StatusEquals": given.status, "NameContains": given.name_contains}
    found: list[dict[str, Any]] = []
    for category in [given.category] if given.category else list(Category):
        request = {"JobCategory": str(category), **{name: value for name, value in filters.items() if value}}
        found += _first(_pages(clients, request), given.limit + 1)
    found.sort(key=lambda job: job["CreationTime"], reverse=True)
    jobs = found[: given.limit]
    if given.json:
        prepare_output()
        for job in jobs:
            print(json.dumps(job, default=_plain))
    elif jobs:
        _print_jobs(jobs)
    if not jobs:
        print("no jobs", file=sys.stderr)
    elif len(found) > given.limit:
        print(f"only the newest {given.limit}; --limit shows more", file=sys.stderr)
    return 0


def _pages(clients: Clients, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    request = {**request, "SortBy": "CreationTime", "SortOrder": "Descending"}
    while True:
        page = clients.call("sagemaker", "list_jobs", **request)
        yield from page["JobSummaries"]
        if not page.get("NextToken"):
            return
        request["NextToken"] = page["NextToken"]


def _first(jobs: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [job for job, _ in zip(jobs, range(count), strict=False)]


def _print_jobs(jobs: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = make_console()
    box = SIMPLE_HEAD if console.is_terminal else None
    table = Table("name", "category", "status", "secondary", "created", box=box, pad_edge=False)
    for job in jobs:
        names = ("JobName", "JobCategory", "JobStatus", "JobSecondaryStatus")
        table.add_row(*(visible(str(job.get(name, ""))) for name in names), f"{job['CreationTime']:%Y-%m-%d %H:%M:%S}")
    console.print(table)


def _show(given: argparse.Namespace) -> int:
    clients = Clients(given)
    return _shown(clients, *_found(clients, given), given)


def _shown(clients: Clients, category: str, name: str, given: argparse.Namespace) -> int:
    """Show a job, as far as its end if that is wanted; the exit status."""
    from emulator.commands.job_view import Progress, print_job

    job = clients.describe(category, name)
    if given.wait:
        with Progress() as progress:
            progress.show(job)
            while job["JobStatus"] not in ENDED:
                time.sleep(LOOK)
                job = clients.describe(category, name)
                progress.show(job)
    if given.json:
        prepare_output()
        job.pop("ResponseMetadata", None)
        job["JobConfigDocument"] = json.loads(job["JobConfigDocument"])
        print(json.dumps(job, default=_plain, indent=2))
    else:
        print_job(job)
    return 0 if not given.wait or job["JobStatus"] == "Completed" else 1


def _logs(given: argparse.Namespace) -> int:
    clients = Clients(given)
    category, name = _found(clients, given)
    prepare_output()
    group, tokens = f"/aws/sagemaker/Job/{category}", dict[str, str]()
    while True:
        job = clients.describe(category, name)
        has_ended = job["JobStatus"] in ENDED  # before the last look at the log
        born = int(job["CreationTime"].timestamp() * 1000)
        for stream in clients.log_streams(group, f"{name}/"):
            for event in clients.log_events(group, stream, tokens):
                if event["timestamp"] < born:  # of a deleted job of the same name
                    continue
                moment = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
                print(f"{moment:%Y-%m-%d %H:%M:%S}  {visible(event['message'])}", flush=True)
        if has_ended or not given.follow:
            return 0
        time.sleep(LOOK)


def _stop(given: argparse.Namespace) -> int:
    clients = Clients(given)
    category, name = _found(clients, given)
    clients.call("sagemaker", "stop_job", JobCategory=category, JobName=name)
    print(f"{name} is stopping")
    return 0


def _delete(given: argparse.Namespace) -> int:
    clients = Clients(given)
    category, name = _found(clients, given)
    clients.call("sagemaker", "delete_job", JobCategory=category, JobName=name)
    print(f"{name} is deleted")
    return 0


def _create(given: argparse.Namespace) -> int:
    clients = Clients(given)
    request = _request(given, clients.place.role_arn)
    arn: str = clients.call("sagemaker", "create_job", **request)["JobArn"]
    if given.wait:
        print(arn, file=sys.stderr)
        return _shown(clients, request["JobCategory"], request["JobName"], given)
    print(json.dumps({"JobArn": arn}) if given.json else arn)
    return 0


def _request(given: argparse.Namespace, role: str) -> dict[str, Any]:
    """A CreateJob request. Raises Refused."""
    try:
        document = json.loads(given.file.read_text())
    except OSError as error:
        raise Refused(f"{given.file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{given.file}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Refused(f"{given.file}: is no JSON object")
    request: dict[str, Any] = dict(document) if "JobConfigDocument" in document else {"JobConfigDocument": document}
    config = request["JobConfigDocument"]
    if not isinstance(config, str):
        request["JobConfigDocument"] = json.dumps(config)
    is_evaluation = isinstance(config, Mapping) and "EvaluationConfig" in config
    category = (
        given.category or request.get("JobCategory") or (Category.EVALUATION if is_evaluation else Category.TRAINING)
    )
    defaults = {
        "JobName": f"{category.lower()}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        "RoleArn": role,
        "JobConfigSchemaVersion": SCHEMA_VERSION,
    }
    options = {"JobName": given.name, "RoleArn": given.role, "JobCategory": str(category)}
    return defaults | request | {name: value for name, value in options.items() if value}


def _found(clients: Clients, given: argparse.Namespace) -> tuple[str, str]:
    """Category and name of the job that is meant. Raises Refused."""
    if given.name.startswith("arn:"):
        try:
            arn = JobArn.parse(given.name)
        except ValueError as error:
            raise Refused(str(error)) from None
        return arn.category, arn.name
    if given.category:
        return given.category, given.name
    found = [str(category) for category in Category if clients.exists(category, given.name)]
    if not found:
        raise Refused(f"there is no job {given.name}; `job-runtime-local job list` shows those that there are")
    if len(found) > 1:
        raise Refused(f"there are jobs {given.name} of {' and '.join(found)}: --category says which")
    return found[0], given.name


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
