"""Drawings: well-formed, in range, the same bytes, and numbers for people."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation import plots, results, svg
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.plots import Bin, Line

finite = st.floats(-1e6, 1e6, allow_nan=False)


def parsed(drawing) -> ET.Element:
    return ET.fromstring(str(drawing))


def inside(root: ET.Element) -> bool:
    """Every circle lies within the view box."""
    _, _, width, height = (float(v) for v in root.get("viewBox").split())
    return all(-1 <= float(c.get("cx")) <= width + 1 and -1 <= float(c.get("cy")) <= height + 1 for c in root.iter("circle"))


@pytest.mark.parametrize(
    "value, digits, text",
    [
        (0.5, 3, "0.500"),
        (-0.25, 2, "−0.25"),
        (-0.0001, 2, "0.00"),
        (None, 3, "–"),
        (math.nan, 3, "–"),
        (math.inf, 3, "–"),
        (12, 1, "12.0"),
    ],
)
def test_number(value, digits, text):
    assert svg.format_number(value, digits) == text


@given(finite, finite, st.integers(2, 10))
def test_ticks_are_inside_even_and_few(a, b, count):
    low, high = min(a, b), max(a, b)
    if high - low < 1e-3:
        return
    found = svg.choose_ticks(low, high, count)
    slack = (high - low) * 1e-6
    assert all(low - slack <= t <= high + slack for t in found)
    assert 1 <= len(found) <= 3 * count
    steps = [y - x for x, y in zip(found, found[1:], strict=False)]
    assert not steps or max(steps) - min(steps) < slack + 1e-9


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=20))
def test_span_holds_every_finite_value(values):
    low, high = svg.find_range(values)
    assert low < high or not any(map(math.isfinite, values))
    assert all(low <= v <= high for v in values if math.isfinite(v))


def test_positions_are_linear():
    axes = svg.Axes((0, 10), (-1, 1))
    assert axes.px(5) == pytest.approx((axes.px(0) + axes.px(10)) / 2)
    assert axes.py(1) == axes.top and axes.py(-1) == axes.height - axes.bottom
    assert axes.py(0.5) < axes.py(0)


def test_path_leaves_gaps():
    axes = svg.Axes((0, 3), (0, 1))
    axes.path([0, 1, 2, 3], [0.1, math.nan, None, 0.4], "curve")
    assert re.findall("[ML]", axes.parts[0].split('d="')[1].split('"')[0]) == ["M", "M"]


def test_intervals_place_means_and_bounds_in_order():
    rows = {"fused": Interval(0.8, 0.7, 0.9), "audio <b>": Interval(0.5, 0.5, 0.5)}
    drawing = plots.draw_intervals(rows, "UAR", main=("fused",))
    root = parsed(drawing)
    assert inside(root)
    first, second = root.iter("circle")
    assert float(first.get("cx")) > float(second.get("cx")) and float(first.get("cy")) < float(second.get("cy"))
    assert "main" in first.get("class") and "fused 0.800 (0.700 to 0.900)" in root.get("aria-label")
    assert "<b>" not in str(drawing)
    assert str(drawing) == str(plots.draw_intervals(rows, "UAR", main=("fused",)))


@pytest.mark.parametrize("rows", [{}, {"a": Interval(0.3, 0.3, 0.3)}, {"x" * 60: Interval(1, -5, 5)}])
def test_intervals_of_little(rows):
    assert inside(parsed(plots.draw_intervals(rows, "UAR")))


def test_reliability_of_a_perfect_model_lies_on_the_line():
    root = parsed(plots.draw_reliability([Bin(0.25, 0.25, 5), Bin(0.75, 0.75, 50)], 0.0))
    axes = svg.Axes((0, 1), (0, 1), width=460, height=330)
    for circle in root.iter("circle"):
        share = (float(circle.get("cx")) - axes.px(0)) / (axes.px(1) - axes.px(0))
        assert float(circle.get("cy")) == pytest.approx(axes.py(share), abs=0.1)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), max_size=30))
def test_scatter_stays_in_its_frame(points):
    root = parsed(plots.draw_scatter([x for x, _ in points], [y for _, y in points], "Valence"))
    assert inside(root) and len(list(root.iter("circle"))) == len(points)


def test_lines_of_one_point_and_of_none():
    for curves in ([], [Line([1], [0.5], "s0")], [Line([], [], "s0")]):
        assert parsed(plots.draw_lines(curves, "epoch", "loss", "Loss")).get("aria-label") == "Loss"


def test_bars_are_proportional():
    root = parsed(plots.draw_bars(["joy", "fear"], {"train": [10, 5], "test": [0, 2]}, "Clips"))
    widths = [float(r.get("width")) for r in root.iter("rect")]
    assert widths[0] == pytest.approx(2 * widths[2], abs=0.2) and widths[1] == 0
    assert parsed(plots.draw_bars([], {}, "Nothing")) is not None


@pytest.mark.parametrize(
    "name, text",
    [
        ("uar", "UAR"),
        ("valence_ccc", "CCC valence"),
        ("frame_arousal_rmse", "RMSE arousal over frames, pooled"),
        ("frame_valence_ccc_per_clip", "CCC valence over frames, mean of clips"),
        ("weighted_f1", "Weighted F1"),
        ("accuracy", "Accuracy"),
    ],
)
def test_titles(name, text):
    assert results.name_metric(name) == text


@pytest.mark.parametrize("name, expected", [("valence_rmse", True), ("ece", True), ("uar", False), ("valence_ccc", False)])
def test_less_is_better(name, expected):
    assert results.less_is_better(name) is expected


def test_headline_prefers_what_selected_the_model():
    assert results.choose_headline(["accuracy", "uar", "macro_f1"], "macro_f1") == "macro_f1"
    assert results.choose_headline(["accuracy", "uar"], "loss") == "uar"
    assert results.choose_headline(["f1"], "uar") == "f1"


def test_epochs_have_whole_ticks():
    root = parsed(plots.draw_lines([Line([1, 2, 3], [0.1, 0.2, 0.3], "s0")], "epoch", "loss", "Loss"))
    labels = [t.text for t in root.iter("text") if t.get("text-anchor") == "middle" and t.get("class") == "tick"]
    assert labels == ["1", "2", "3"]
