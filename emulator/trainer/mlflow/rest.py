"""MLflow's REST interface, as far as jobs need it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from emulator.trainer.http import HTTPError, Origin
from emulator.trainer.mlflow.server import MlflowAway, MlflowBusy, MlflowError, MlflowServer

#: Seconds that an answer may take.
TIMEOUT = 10.0

_API = "/api/2.0/mlflow"

#: Statuses that say that the same may be done later, whatever else they say.
_NOT_NOW = {429, 502, 503, 504}

#: The most parameters that one request may have.
MAX_PARAMETERS = 100

#: The most characters of a parameter's value.
MAX_VALUE = 6000


class MlflowRefused(MlflowError):
    """MLflow has answered with an error. `code` is its name for it."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {message}")


class Rest:
    """Asks an MLflow. Every function may raise MlflowAway and MlflowRefused."""

    def __init__(self, server: MlflowServer) -> None:
        self._server = server
        self._url = ""
        self._origin: Origin | None = None

    async def experiment_id(self, name: str) -> str:
        """The experiment of a name, which is made if there is none."""
        for _ in range(2):
            try:
                query = urlencode({"experiment_name": name})
                found = await self._ask("GET", f"{_API}/experiments/get-by-name?{query}")
                with _read():
                    return str(found["experiment"]["experiment_id"])
            except MlflowRefused as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            try:
                made = await self._ask("POST", f"{_API}/experiments/create", {"name": name})
                with _read():
                    return str(made["experiment_id"])
            except MlflowRefused as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":  # somebody was quicker
                    raise
        raise MlflowRefused("RESOURCE_ALREADY_EXISTS", f"experiment {name} is there, and cannot be had")

    async def find_run(self, experiment_id: str, tags: Mapping[str, str]) -> tuple[str, str] | None:
        """Id and name of a run of an experiment with all these tags."""
        conditions = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        question = {"experiment_ids": [experiment_id], "filter": conditions, "max_results": 1}
        found = await self._ask("POST", f"{_API}/runs/search", question)
        with _read():
            return _id_and_name(found["runs"][0]) if found.get("runs") else None

    async def create_run(
        self, experiment_id: str, name: str | None, start: int, tags: Mapping[str, str]
    ) -> tuple[str, str]:
        """Id and name of a new run, which MLflow names if we do not. `start` in milliseconds."""
        document = {"experiment_id": experiment_id, "start_time": start, "tags": _pairs(tags)}
        document |= {} if name is None else {"run_name": name}
        made = await self._ask("POST", f"{_API}/runs/create", document)
        with _read():
            return _id_and_name(made["run"])

    async def update_run(self, run_id: str, status: str, end: int | None = None) -> None:
        """Set a run's status, and when it ended in milliseconds."""
        document = {"run_id": run_id, "status": status} | ({} if end is None else {"end_time": end})
        await self._ask("POST", f"{_API}/runs/update", document)

    async def log_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        """Parameters of a run."""
        pairs = _pairs({name: value[:MAX_VALUE] for name, value in parameters.items()})
        for first in range(0, len(pairs), MAX_PARAMETERS):
            document = {"run_id": run_id, "params": pairs[first : first + MAX_PARAMETERS]}
            await self._ask("POST", f"{_API}/runs/log-batch", document)

    async def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, time: int) -> None:
        """Metrics of a step, all of them or none. `time` in milliseconds."""
        given = [{"key": name, "value": value, "timestamp": time, "step": step} for name, value in metrics.items()]
        await self._ask("POST", f"{_API}/runs/log-batch", {"run_id": run_id, "metrics": given})

    async def has_metric(self, run_id: str, name: str, step: int) -> bool:
        """Whether a metric of a step is there."""
        query = urlencode({"run_id": run_id, "metric_key": name})
        found = await self._ask("GET", f"{_API}/metrics/get-history?{query}")
        with _read():
            return any(int(each.get("step", 0)) == step for each in found.get("metrics", ()))

    async def log_spans(self, experiment_id: str, run_id: str, spans: bytes) -> None:
        """Traces of a run, as OTLP's JSON. Those that are there are replaced."""
        # MLflow's own clients send the same to the same place.
        headers = {"x-mlflow-experiment-id": experiment_id, "x-mlflow-run-id": run_id}
        await self._ask("POST", "/v1/traces", spans, headers)

    async def aclose(self) -> None:
        """End the connections."""
        if self._origin is not None:
            await self._origin.aclose()

    async def _ask(
        self, method: str, path: str, document: object = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = await self._server.url()
        if url != self._url or self._origin is None:
            await self.aclose()
            self._url, self._origin = url, Origin(url, keep_alive=True)
        origin = self._origin
        try:
            async with asyncio.timeout(TIMEOUT):
                reply = await origin.send(method, origin.path + path, document, headers)
        except TimeoutError:
            raise MlflowBusy(f"no answer from MLflow at {url} within {TIMEOUT:g} s") from None
        except HTTPError as error:
            raise MlflowAway(f"MLflow at {url}: {error}") from None
        try:
            answer = json.loads(reply.body or b"{}")
        except (ValueError, RecursionError):
            answer = None
        has_code = isinstance(answer, dict) and "error_code" in answer
        if reply.status in _NOT_NOW or (reply.status >= 500 and not has_code):
            raise MlflowBusy(f"MLflow at {url} answered {reply.status}")
        if not 200 <= reply.status < 300 or not isinstance(answer, dict):
            told = answer if isinstance(answer, dict) else {}
            text = told.get("message") or told.get("detail") or reply.body[:200].decode("utf-8", "replace")
            raise MlflowRefused(str(told.get("error_code") or f"HTTP {reply.status}"), str(text))
        return answer


@contextmanager
def _read() -> Iterator[None]:
    """While an answer is read. Raises MlflowRefused for one that MLflow does not give."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise MlflowRefused("HTTP 200", "the answer is none of MLflow's") from None


def _id_and_name(run: Any) -> tuple[str, str]:
    return str(run["info"]["run_id"]), str(run["info"].get("run_name", ""))


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items()]
