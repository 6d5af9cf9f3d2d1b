"""What an MLflow has of an experiment, by MLflow's own client: a program for `.environments/sagemaker`.

    python mlflow_reader.py TRACKING_URI EXPERIMENT

Writes JSON. Imports nothing of this repository.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(uri: str, experiment: str) -> None:
    import mlflow  # type: ignore[import-not-found,unused-ignore]

    mlflow.set_tracking_uri(uri)  # which plugins ask for
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    runs = [_run(client, run) for run in client.search_runs([found.experiment_id])]
    print(json.dumps({"experiment_id": found.experiment_id, "runs": runs}))


def _run(client: Any, run: Any) -> dict[str, Any]:
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500)
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "parameters": run.data.params,
        "metrics": {
            name: [[metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "traces": [_trace(trace) for trace in traces],
    }


def _trace(trace: Any) -> dict[str, Any]:
    names = {span.span_id: span.name for span in trace.data.spans}
    return {
        "state": str(trace.info.state.value),
        "tags": trace.info.tags,
        "usage": trace.info.token_usage,
        "spans": [
            {
                "name": span.name,
                "parent": names.get(span.parent_id),
                "type": span.span_type,
                "inputs": span.inputs,
                "outputs": span.outputs,
                "attributes": {name: span.attributes.get(name) for name in ("reward", "mlflow.chat.tokenUsage")},
            }
            for span in sorted(trace.data.spans, key=lambda span: (span.start_time_ns, span.parent_id is not None))
        ],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
