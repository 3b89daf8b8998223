"""The drawings of the report, each a function from plain values to inline SVG."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .intervals import Interval
from .svg import Axes, choose_ticks, find_range, format_number


@dataclass(frozen=True)
class Line:
    """A curve; `style` is a CSS class such as `truth`, `s0`, `faint s0`."""

    x: Sequence[float]
    y: Sequence[float | None]
    style: str
    name: str = ""


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: mean confidence, share right, number of predictions."""

    confidence: float
    accuracy: float
    count: int


def draw_intervals(
    rows: Mapping[str, Interval], label: str, *, main: Collection[str] = (), floors: Mapping[str, float] | None = None
) -> Markup:
    """A dot and a whisker per name, best seen side by side; a dashed whisker is the range of single groups and runs.

    Args:
        main: names drawn in the accent colour.
        floors: name and value of vertical lines: chance, majority.
    """
    floors = floors or {}
    left = min(14 + 7.2 * max((len(name) for name in rows), default=8), 170)
    top = 8 + 16 * len(floors)
    height = 28 + top + 34 * len(rows)
    low, high = find_range([v for row in rows.values() for v in row] + list(floors.values()), pad=0.1)
    axes = Axes((low, high), (0, len(rows)), height=height, left=left, right=62, top=top, bottom=28)
    floor = height - axes.bottom
    for tick in choose_ticks(low, high, 4):
        axes.line(axes.px(tick), axes.top, axes.px(tick), floor, "grid")
        axes.text(axes.px(tick), floor + 17, f"{tick:g}".replace("-", "−"))
    for place, (name, row) in enumerate(rows.items()):
        y = len(rows) - place - 0.5
        colour, strong = ("main", " strong") if name in main else ("other", "")
        axes.text(left - 8, axes.py(y) + 4, _clip(name, 22), f"name{strong}", "end")
        if row.bounded or row.ranged:
            first, last = (row.low, row.high) if row.bounded else (row.least, row.most)
            style = f"whisker {colour}" + ("" if row.bounded else " dash")
            axes.line(axes.px(first), axes.py(y), axes.px(last), axes.py(y), style)
            for end in (first, last):
                axes.line(axes.px(end), axes.py(y) - 5, axes.px(end), axes.py(y) + 5, f"whisker {colour}")
        axes.dot(row.mean, y, 5, f"point {colour}", f"{name}: {_tell(row)}")
        axes.text(460 - 8, axes.py(y) + 4, format_number(row.mean), f"value{strong}", "end")
    axes.line(left, floor, 460 - axes.right, floor, "axis")
    for place, (name, value) in enumerate(sorted(floors.items(), key=lambda item: item[1])):
        high_up = 11 + 16 * place
        axes.line(axes.px(value), high_up + 3, axes.px(value), floor, "ideal")
        right = axes.px(value) > (left + 460 - axes.right) / 2
        axes.text(axes.px(value), high_up, f"{name} {format_number(value)}", "small floor", "end" if right else "start")
    told = "; ".join(f"{name} {_tell(row)}" for name, row in rows.items())
    told += "".join(f"; {name} {format_number(value)}" for name, value in floors.items())
    return axes.render("intervals", f"{label} with confidence intervals: {told}")


def _tell(row: Interval) -> str:
    if row.bounded:
        return f"{format_number(row.mean)} ({format_number(row.low)} to {format_number(row.high)})"
    if row.ranged:
        return f"{format_number(row.mean)} (no interval; single ones {format_number(row.least)} to {format_number(row.most)})"
    return f"{format_number(row.mean)} (no interval)"


def draw_lines(
    curves: Sequence[Line],
    x_label: str,
    y_label: str,
    description: str,
    *,
    y_range: tuple[float, float] | None = None,
    height: float = 270,
    width: float = 460,
    marks: Sequence[float] = (),
    floors: Mapping[str, float] | None = None,
    spread: Sequence[float | None] | None = None,
) -> Markup:
    """Curves over a shared axis.

    Args:
        spread: half the height of a band around the last curve.
        marks: heights at which a stronger horizontal line is drawn (zero of a signed scale).
        floors: name and height of dashed lines: chance.
    """
    x_range = find_range([x for curve in curves for x in curve.x], pad=0.01)
    y_range = y_range or find_range([*(y for curve in curves for y in curve.y), *(floors or {}).values()])
    axes = Axes(x_range, y_range, width=width, height=height, left=66)
    whole = all(float(x).is_integer() for curve in curves for x in curve.x)
    axes.frame(x_label, y_label, x_ticks=[t for t in choose_ticks(*x_range) if not whole or t.is_integer()])
    for mark in marks:
        axes.line(axes.left, axes.py(mark), axes.width - axes.right, axes.py(mark), "axis")
    description += _draw_floors(axes, floors or {})
    if spread is not None:
        _draw_band(axes, curves[-1], spread)
    for curve in curves:
        axes.path(curve.x, curve.y, f"curve {curve.style}")
    return axes.render("lines", description)


def _draw_band(axes: Axes, curve: Line, spread: Sequence[float | None]) -> None:
    """The ground within `spread` of a curve, inside the frame; nothing where either is unknown."""
    low, high = axes.y
    known = [(x, y, s) for x, y, s in zip(curve.x, curve.y, spread, strict=True) if y is not None and s is not None]
    axes.area([x for x, _, _ in known], [max(low, y - s) for _, y, s in known], [min(high, y + s) for _, y, s in known], "band")


def _draw_floors(axes: Axes, floors: Mapping[str, float]) -> str:
    """Dashed horizontal lines with their names; what they say, for the description."""
    for name, value in floors.items():
        axes.line(axes.left, axes.py(value), axes.width - axes.right, axes.py(value), "ideal")
        axes.text(axes.width - axes.right, axes.py(value) - 4, f"{name} {format_number(value)}", "small floor", "end")
    return "".join(f"; {name} {format_number(value)}" for name, value in floors.items())


def draw_reliability(bins: Sequence[Bin], ece: float, floors: Mapping[str, float] | None = None) -> Markup:
    """How often a prediction of a given confidence is right; bars at the foot say how many there are.

    Args:
        floors: name and share right of guessing.
    """
    axes = Axes((0, 1), (0, 1), width=460, height=330)
    axes.frame("confidence of the prediction", "share that is right", x_ticks=choose_ticks(0, 1), y_ticks=choose_ticks(0, 1))
    most = max((b.count for b in bins), default=1)
    width = (axes.width - axes.left - axes.right) / max(len(bins), 10)
    for one in bins:
        if one.count:
            tall = 46 * one.count / most
            axes.rect(
                axes.px(one.confidence) - width / 2 + 3,
                axes.py(0) - tall,
                width - 6,
                tall,
                "count",
                f"{one.count} predictions",
            )
    axes.line(axes.px(0), axes.py(0), axes.px(1), axes.py(1), "ideal")
    lines = _draw_floors(axes, floors or {})
    filled = [one for one in bins if one.count]
    axes.path([b.confidence for b in filled], [b.accuracy for b in filled], "curve s0")
    for one in filled:
        axes.dot(
            one.confidence,
            one.accuracy,
            4.5,
            "point main",
            f"confidence {format_number(one.confidence, 2)}: {format_number(one.accuracy, 2)} right of {one.count}",
        )
    told = ", ".join(f"{format_number(b.confidence, 2)} → {format_number(b.accuracy, 2)}" for b in filled)
    return axes.render("reliability", f"Reliability diagram, ECE {format_number(ece)}. Confidence → share right: {told}{lines}")


def draw_scatter(truth: Sequence[float], predicted: Sequence[float], name: str) -> Markup:
    """Prediction against truth for one dimension in [-1, 1]."""
    axes = Axes((-1, 1), (-1, 1), width=400, height=350)
    axes.frame(f"{name}, truth", f"{name}, prediction", x_ticks=choose_ticks(-1, 1, 4), y_ticks=choose_ticks(-1, 1, 4))
    axes.line(axes.px(-1), axes.py(-1), axes.px(1), axes.py(1), "ideal")
    for x, y in zip(truth, predicted, strict=True):
        axes.dot(max(-1.0, min(1.0, x)), max(-1.0, min(1.0, y)), 3, "cloud")
    return axes.render("scatter", f"{name}: prediction against truth for {len(truth)} clips")


def draw_path(xs: Sequence[float], ys: Sequence[float], values: Sequence[float], title: str, description: str) -> Markup:
    """A way through the plane, each of its stations as strong as its value in [-1, 1] is far from zero, in one colour above
    zero and in another below; a ring where it begins."""
    axes = Axes(find_range(xs), find_range(ys), width=300, height=250, left=14, bottom=30)
    axes.frame(title, "", x_ticks=(), y_ticks=())
    axes.path(xs, ys, "curve faint s0")
    for x, y, value in zip(xs, ys, values, strict=True):
        axes.dot(x, y, 3.5, "station" if value >= 0 else "station below", strength=0.12 + 0.88 * min(abs(value), 1.0))
    axes.dot(xs[0], ys[0], 6, "ring")
    return axes.render("way", description)


def draw_bars(names: Sequence[str], groups: Mapping[str, Sequence[int]], description: str) -> Markup:
    """Grouped horizontal bars, one group of bars per name, one bar per key of `groups`."""
    each = 14
    row = each * len(groups) + 10
    left = min(14 + 7.2 * max((len(name) for name in names), default=8), 150)
    height = row * len(names) + 14
    most = max((value for values in groups.values() for value in values), default=1) or 1
    axes = Axes((0, most), (0, 1), height=height, left=left, right=48, top=4, bottom=4)
    for place, name in enumerate(names):
        top = axes.top + place * row + 4
        axes.text(left - 8, top + (row - 10) / 2 + 4, _clip(name, 20), "name", "end")
        for rank, (group, values) in enumerate(groups.items()):
            y = top + rank * each
            axes.rect(left, y, axes.px(values[place]) - left, each - 2, f"bar f{rank}", f"{name}, {group}: {values[place]}")
            axes.text(axes.px(values[place]) + 5, y + each - 3, str(values[place]), "small", "start")
    axes.line(left, axes.top, left, height - 4, "axis")
    return axes.render("bars", description)


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
