"""Lambda functions that were made with CreateFunction: moto 5.2.5 keeps them, and would run them in Docker."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import logging
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from emulator.agent_map import AgentArn
from emulator.aws.invocations import log_lines, reply_of
from emulator.aws.request import Reply, Request
from emulator.protocol.errors import AWSError, ResourceNotFoundException
from emulator.store import now
from emulator.trainer.agents import Agent, AgentFailed, agent_environment
from emulator.trainer.agents.lambda_function import check_invocation
from emulator.trainer.agents.lambda_process import Function, Invocation
from emulator.trainer.agents.lambda_workers import LambdaWorkers

log = logging.getLogger(__name__)

#: Unpacked code that a function may have, as at AWS.
MOST_CODE = 262_144_000

#: Of the server's environment, what a function gets: the rest is nobody's business.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")

#: Bytes of an event, by how the function is invoked.
MOST_EVENT = {"Event": 1_048_576}
MOST_EVENT_AT_ONCE = 6_291_456

_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations/?")

#: `NAME`, `ACCOUNT:function:NAME` or an ARN, each perhaps with a qualifier.
_NAMED = re.compile(r"(?:(?:arn:aws[a-z\-]*:lambda:([a-z0-9\-]+):)?([0-9]{12}):function:)?([\w\-]+)(?::([\w$\-]+))?")


class InvalidRequestContentException(AWSError):
    """An event is not JSON."""

    status = 400


class RequestTooLargeException(AWSError):
    """An event is larger than Lambda takes."""

    status = 413


class InvalidRuntimeException(AWSError):
    """A function cannot be run here."""

    status = 400  # 502 at Lambda, which clients try again


class InvalidZipFileException(AWSError):
    """A function's code cannot be unpacked."""

    status = 400  # 502 at Lambda, which clients try again


class FunctionLog(Protocol):
    """Where the log of functions goes."""

    async def log(self, group: str, stream: str, lines: list[tuple[int, str]]) -> None:
        """Append lines, each with its time in microseconds."""


class Functions:
    """The functions of this server, run. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        region: str,
        account: str,
        keys: tuple[str, str],
        cloud: FunctionLog,
        load: Callable[[], Awaitable[object]],
    ) -> None:
        """`url` and `keys`: where functions find AWS; `region` and `account` hold where a request names none.

        `load` has moto know its functions; it raises AWSError where there is no moto.
        """
        self._load = load
        self._url = url
        self._keys = keys
        self._region = region
        self._account = account
        self._cloud = cloud
        self._workers: dict[str, LambdaWorkers] = {}
        self._retired: list[LambdaWorkers] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._folder: Path | None = None
        self._unpacking = asyncio.Lock()
        self._logging = asyncio.Lock()

    # Requests

    async def serve(self, request: Request) -> Reply | None:
        """Invoke; None for another request. Raises AWSError."""
        found = _INVOKE.fullmatch(request.path)
        if request.method != "POST" or found is None:
            return None
        made = await self._find(found[1], request.parameters.get("Qualifier"), request.region)
        kind = request.header("x-amz-invocation-type") or "RequestResponse"
        if request.size > (limit := MOST_EVENT.get(kind, MOST_EVENT_AT_ONCE)):
            # ASSUMED: the wording.
            raise RequestTooLargeException(
                f"{request.size} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
            )
        try:
            event = json.loads(request.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise InvalidRequestContentException(f"Could not parse request body into json: {error}") from None
        workers = await self._workers_of(made)
        match kind:
            case "DryRun":
                return Reply(204, [], b"")
            case "Event":
                # Not tried again when it fails, which Lambda does twice, a minute and more later.
                self._run(self._invoke(workers, event))
                return Reply(202, [], b"")
        # As at Lambda, a caller who goes away does not end it.
        invocation = await asyncio.shield(self._run(self._invoke(workers, event)))
        return reply_of(workers.function, invocation, tail=request.header("x-amz-log-type") == "Tail")

    # Jobs

    async def agent(self, arn: str) -> Agent | None:
        """The function of that ARN as an agent; None if there is none."""
        try:
            await self._find(arn, None, self._region)
        except AWSError:
            return None
        return CreatedFunction(self, arn)

    async def start(self, arn: str, patience: float) -> None:
        """Import a function once. Raises AWSError, AgentFailed."""
        problem = await (await self._workers_of(await self._find(arn, None, self._region))).start(patience)
        if problem is not None:
            raise AgentFailed(problem)

    async def invoke(self, arn: str, event: Any) -> Invocation:
        """Invoke a function as it is now. Raises AWSError."""
        return await self._invoke(await self._workers_of(await self._find(arn, None, self._region)), event)

    async def aclose(self) -> None:
        """End what runs, and take away the code."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for workers in (*self._workers.values(), *self._retired):
            await workers.aclose()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _run(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _invoke(self, workers: LambdaWorkers, event: Any) -> Invocation:
        invocation = await workers.invoke(event)
        self._run(self._write_log(workers.function, invocation))
        return invocation

    async def _write_log(self, function: Function, invocation: Invocation) -> None:
        lines = [(now(), line) for line in log_lines(function, invocation)]
        try:
            async with self._logging:
                await self._cloud.log(f"/aws/lambda/{function.name}", invocation.log_stream, lines)
        except Exception as error:  # an invocation is what it is, whoever hears of it
            log.warning("the log of the Lambda function %s cannot be written: %s", function.name, error)

    async def _find(self, name: str, qualifier: str | None, region: str) -> Any:
        """What moto has of a function. Raises ResourceNotFoundException, and AWSError where there is no moto."""
        await self._load()
        models = await asyncio.to_thread(importlib.import_module, "moto.awslambda.models")
        found = _NAMED.fullmatch(name)
        if found is not None:
            its_region, account, name, its_qualifier = found.groups()
            region, account = its_region or region, account or self._account
            qualifier = its_qualifier or qualifier
            with suppress(models.UnknownFunctionException, models.UnknownAliasException, KeyError):
                return models.lambda_backends[account][region].get_function(name, qualifier)
            arn = f"arn:aws:lambda:{region}:{account}:function:{name}" + (f":{qualifier}" if qualifier else "")
            if (workers := self._workers.pop(arn, None)) is not None:  # it was deleted
                self._retire(workers)
            name = arn
        raise ResourceNotFoundException(f"Function not found: {name}")

    async def _workers_of(self, made: Any) -> LambdaWorkers:
        """The workers of a function as it is now. Raises InvalidRuntimeException, InvalidZipFileException."""
        is_zip = made.package_type == "Zip" and hasattr(made, "code_bytes")
        if not is_zip or not str(made.run_time).startswith("python"):
            what = made.run_time if is_zip else "of an image"
            raise InvalidRuntimeException(
                f"{made.function_arn}: only Python functions of a zip are run here, not {what}"
            )
        if made.layers:
            raise InvalidRuntimeException(
                f"{made.function_arn}: layers are not emulated; put what they hold into the function's zip"
            )
        folder = await self._unpack(made)
        function = self._function(made, folder)
        workers = self._workers.get(function.arn)
        if workers is None or workers.function != function:
            if workers is not None:
                self._retire(workers)
            workers = self._workers[function.arn] = LambdaWorkers(function)
        return workers

    def _retire(self, workers: LambdaWorkers) -> None:
        workers.retire()
        self._retired.append(workers)

    def _function(self, made: Any, folder: Path) -> Function:
        module, _, handler = str(made.handler).rpartition(".")
        arn = AgentArn.parse(made.function_arn)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= agent_environment(self._url, arn.region, {})
        environment |= {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ACCESS_KEY_ID": self._keys[0],
            "AWS_SECRET_ACCESS_KEY": self._keys[1],
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{made.run_time}",
            "AWS_LAMBDA_FUNCTION_NAME": made.function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": str(made.version) if arn.qualifier else "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(made.memory_size),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{made.function_name}",
            "LAMBDA_TASK_ROOT": str(folder),
            "_HANDLER": str(made.handler),
            "TZ": ":UTC",
        }
        return Function(
            name=made.function_name,
            arn=made.function_arn,
            folder=str(folder),
            source=module.replace("/", ".") or str(made.handler),
            handler=handler,
            environment=environment | dict(made.environment_vars or {}),
            timeout=float(made.timeout),
            memory=int(made.memory_size),
            version=environment["AWS_LAMBDA_FUNCTION_VERSION"],
            directory=str(folder),
        )

    async def _unpack(self, made: Any) -> Path:
        """The folder of a function's code, which is named by its digest. Raises InvalidZipFileException."""
        async with self._unpacking:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="job-runtime-local-functions-"))
            digest = base64.b64decode(made.code_sha_256).hex() if made.code_sha_256 else "empty"
            folder = self._folder / digest
            if not folder.exists():
                try:
                    await asyncio.to_thread(_unpack, made.code_bytes, folder)
                except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
                    problem = f"{made.function_arn}: its code cannot be unpacked: {error}"
                    raise InvalidZipFileException(problem) from None
            return folder


class CreatedFunction:
    """A function that was made with CreateFunction, as an agent; it is as new as the last UpdateFunctionCode."""

    #: It may have handed its work to somebody else.
    answers_when_done = False

    def __init__(self, functions: Functions, arn: str) -> None:
        self._functions = functions
        self._arn = arn

    async def start(self, patience: float) -> None:
        """Import it once. Raises AgentFailed."""
        try:
            await self._functions.start(self._arn, patience)
        except AWSError as error:
            raise AgentFailed(error.message) from None

    async def roll_out(self, request: Mapping[str, Any], trajectory_id: str) -> None:  # noqa: ARG002 - of no use to Lambda
        """Invoke it. Raises AgentFailed."""
        try:
            check_invocation(await self._functions.invoke(self._arn, request))
        except AWSError as error:
            raise AgentFailed(error.message) from None

    async def aclose(self) -> None:
        """Its workers are everybody's."""


def _unpack(code: bytes, folder: Path) -> None:
    """Raises BadZipFile, OSError, ValueError, and what zipfile says of encrypted or strange archives."""
    with zipfile.ZipFile(BytesIO(code)) as archive:
        if (size := sum(each.file_size for each in archive.infolist())) > MOST_CODE:
            raise ValueError(f"it has {size} bytes, and may have {MOST_CODE}")
        beside = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            for each in archive.infolist():
                file = Path(archive.extract(each, beside))  # which keeps out what would leave the folder
                if (mode := each.external_attr >> 16 & 0o777) and not each.is_dir():
                    file.chmod(mode | 0o600)
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
