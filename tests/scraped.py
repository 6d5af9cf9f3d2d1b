"""What `/metrics` says, read as Prometheus reads it."""

from __future__ import annotations

import httpx2
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """One answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One sample's value. Raises KeyError."""
        return self._values[name, frozenset(labels.items())]

    def labelled(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a name by those of its labels, in the order of the labels' names; those that are 0 left out."""
        return {
            tuple(value for _, value in sorted(labels)): number
            for (each, labels), number in self._values.items()
            if each == name and number
        }


def scrape(url: str) -> Scraped:
    """Ask for the metrics."""
    answer = httpx2.get(f"{url}/metrics")
    assert answer.status_code == 200, answer.text
    return Scraped(answer.text)
