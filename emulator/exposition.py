"""The metrics in Prometheus's format. Imported when `/metrics` is first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from emulator.metrics import Histogram, Metrics, WriterMetrics
from emulator.trajectory import Status, TurnStatus


@dataclass(frozen=True, slots=True)
class Stored:
    """What was looked up in the database for this answer, or a little earlier."""

    trajectories: Mapping[Status, int]
    database_bytes: int | None  #: None: there is no file


def expose(metrics: Metrics, writer: WriterMetrics, stored: Stored, accept: str) -> tuple[bytes, str]:
    """Everything, as the scraper's Accept header wants it, and its content type."""
    registry = CollectorRegistry()
    registry.register(_Emulator(metrics, writer, stored))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Emulator(Collector):
    """The emulator's own metrics."""

    def __init__(self, metrics: Metrics, writer: WriterMetrics, stored: Stored) -> None:
        self._metrics = metrics
        self._writer = writer
        self._stored = stored

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        yield from self._requests()
        yield from self._turns()
        yield from self._now()
        yield _histogram(
            "job_runtime_writer_batch_turns",
            "Turns that one transaction stored; 0 where it only created, sealed or rewarded.",
            self._writer.batch_turns,
        )
        yield _histogram(
            "job_runtime_writer_wait_seconds",
            "From a write's way to the writer until it was committed.",
            self._writer.wait,
        )

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "job_runtime_requests",
            "Requests, by operation and by how they ended: ok, the name of AWS's error, or ModelError, BrokenStream "
            "or ClientGone.",
            labels=("operation", "code"),
        )
        added = HistogramMetricFamily(
            "job_runtime_added_seconds",
            "What the emulator adds: from the whole request to the end of the answer, without the model server's part.",
            labels=("operation",),
        )
        model = HistogramMetricFamily(
            "job_runtime_model_seconds",
            "What the model server takes: from our request to the last byte of its answer.",
            labels=("operation",),
        )
        for operation, measured in sorted(self._metrics.operations.items()):
            for code, count in sorted(measured.codes.copy().items()):
                requests.add_metric((operation, code), count)
            added.add_metric((operation,), *_buckets(measured.added))
            model.add_metric((operation,), *_buckets(measured.model))
        return iter((requests, added, model))

    def _turns(self) -> Iterator[Metric]:
        turns = CounterMetricFamily("job_runtime_turns", "Turns stored since the start, by status.", labels=("status",))
        for turn_status in TurnStatus:
            turns.add_metric((turn_status,), self._metrics.turns.get(turn_status, 0))
        yield turns
        trajectories = GaugeMetricFamily("job_runtime_trajectories", "Trajectories, by status.", labels=("status",))
        for status in Status:
            trajectories.add_metric((status,), self._stored.trajectories.get(status, 0))
        yield trajectories

    def _now(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("job_runtime_in_flight", "Samples in flight.", self._metrics.in_flight)
        yield GaugeMetricFamily(
            "job_runtime_open_streams", "Streams that have begun and not ended.", self._metrics.open_streams
        )
        if self._stored.database_bytes is not None:
            yield GaugeMetricFamily(
                "job_runtime_database_bytes", "Size of the database, its log included.", self._stored.database_bytes
            )


def _histogram(name: str, documentation: str, histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, documentation, labels=())
    family.add_metric((), *_buckets(histogram))
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Prometheus's buckets, each with what is in those below it; and the sum of all values."""
    bounds = (*histogram.bounds, float("inf"))
    counts = accumulate(histogram.counts.copy())
    names = (str(bound) if bound < float("inf") else "+Inf" for bound in bounds)
    return list(zip(names, counts, strict=True)), histogram.total
