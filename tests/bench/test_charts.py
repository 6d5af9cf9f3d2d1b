"""Charts are SVG that a browser reads, with every value in its place."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.charts import LEFT, RIGHT, WIDTH, Row, dot_plot
from bench.figures.samples import rate
from bench.plots import PLOTS, write_plots
from bench.results import Results

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [Row("peer & co", False, {"median": 20.0, "p99": 900.0}), Row("ours", True, {"median": 0.2})]


def dots(svg: str) -> list[float]:
    """How far to the right the dots stand, those of the legend left out."""
    circles = ET.fromstring(svg).iter(f"{SVG}circle")
    return [float(circle.attrib["cx"]) for circle in circles if circle.attrib["cy"] != "44"]


def texts(svg: str) -> list[str]:
    """What is written."""
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("is_log", [True, False])
def test_every_value_is_a_dot_between_the_first_and_the_last_tick(is_log: bool) -> None:
    places = dots(dot_plot("Time", "ms", ROWS, is_log=is_log))
    assert len(places) == 3
    assert all(LEFT <= x <= WIDTH - RIGHT for x in places)
    assert places[2] < places[0] < places[1]


def test_a_logarithmic_axis_has_powers_of_ten_and_says_so() -> None:
    written = texts(dot_plot("Time", "ms", ROWS, is_log=True))
    assert [text for text in written if re.fullmatch("[01.,]+", text)] == ["0.1", "1", "10", "100", "1,000"]
    assert "ms (log scale)" in written


def test_values_series_and_names_are_written() -> None:
    written = texts(dot_plot("Time", "ms", ROWS, is_log=True))
    assert {"Time", "peer & co", "ours", "median", "p99", "20.0 · 900", "0.200 · –"} <= set(written)


def test_a_value_of_nothing_can_be_drawn() -> None:
    for is_log in (True, False):
        assert dots(dot_plot("Lost", "streams", [Row("ours", True, {"": 0.0})], is_log=is_log))


def test_plots_are_drawn_for_what_was_measured(tmp_path: Path) -> None:
    results = Results()
    results.add(rate(32), "normal", 10_000.0)
    (written,) = write_plots(results, tmp_path)
    assert written.name == "rate.svg"
    assert "10,000" in texts(written.read_text())
    assert len({plot.name for plot in PLOTS}) == len(PLOTS)
