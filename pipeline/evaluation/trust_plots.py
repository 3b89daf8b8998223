"""Drawings of what tells how far figures can be trusted, each a function from plain values to inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from .intervals import Interval
from .svg import Axes, choose_ticks, find_range, format_number


def draw_band(xs: Sequence[float], rows: Sequence[Interval], x_label: str, y_label: str) -> Markup:
    """A curve and the intervals about it, over shares from 0 to 1."""
    axes = Axes((0, 1), find_range([v for row in rows for v in row[:3]]), height=290, left=58)
    axes.frame(x_label, y_label, x_ticks=choose_ticks(0, 1))
    axes.area(xs, [row.low for row in rows], [row.high for row in rows], "band")
    axes.path(xs, [row.mean for row in rows], "curve s0")
    for x, row in zip(xs, rows, strict=True):
        axes.dot(x, row.mean, 3, "point main", f"{format_number(x, 2)}: {_tell(row)}")
    told = ", ".join(f"{format_number(x, 2)} → {_tell(row)}" for x, row in zip(xs, rows, strict=True))
    return axes.render("band", f"{y_label} by {x_label}: {told}")


def draw_steps(steps: Sequence[str], curves: Mapping[str, Sequence[Interval]], x_label: str, y_label: str) -> Markup:
    """A curve per name over steps that have words, from little to much, with a whisker at each.

    Args:
        curves: name → an interval per step.
    """
    bounds = [v for rows in curves.values() for row in rows for v in (row.mean, *_ends(row))]
    axes = Axes((-0.35, len(steps) - 0.65), find_range(bounds), height=290, left=58)
    axes.frame(x_label, y_label, x_ticks=[])
    floor = axes.height - axes.bottom
    for place, step in enumerate(steps):
        axes.text(axes.px(place), floor + 17, step)
    for rank, rows in enumerate(curves.values()):
        # Side by side, so that no whisker hides another.
        xs = [place + (rank - (len(curves) - 1) / 2) * 0.12 for place in range(len(steps))]
        for x, row in zip(xs, rows, strict=True):
            low, high = _ends(row)
            dash = "" if row.bounded else " dash"
            axes.line(axes.px(x), axes.py(low), axes.px(x), axes.py(high), f"curve s{rank}{dash}")
        axes.path(xs, [row.mean for row in rows], f"curve s{rank}")
        for x, step, row in zip(xs, steps, rows, strict=True):
            axes.dot(x, row.mean, 4, f"spot s{rank}", f"{step}: {_tell(row)}")
    told = "; ".join(
        f"{name}: " + ", ".join(f"{step} {_tell(row)}" for step, row in zip(steps, rows, strict=True))
        for name, rows in curves.items()
    )
    return axes.render("steps", f"{y_label} by {x_label}. {told}")


def draw_fit(
    xs: Sequence[float], ys: Sequence[float], fitted: Sequence[float | None], x_label: str, y_label: str, says: str
) -> Markup:
    """Points and the line fitted to them."""
    axes = Axes(find_range(xs), find_range([*ys, *fitted]), height=290, left=58)
    axes.frame(x_label, y_label)
    axes.path(xs, fitted, "curve s1")
    for x, y in zip(xs, ys, strict=True):
        axes.dot(x, y, 4, "point main", f"{format_number(x)}: {format_number(y)}")
    told = ", ".join(f"{format_number(x)} → {format_number(y)}" for x, y in zip(xs, ys, strict=True))
    return axes.render("fit", f"{y_label} by {x_label}, {says}: {told}")


def _ends(row: Interval) -> tuple[float, float]:
    """Of the whisker: the interval, else the range of single groups, else nothing."""
    return (row.low, row.high) if row.bounded else (row.least, row.most) if row.ranged else (row.mean, row.mean)


def _tell(row: Interval) -> str:
    low, high = _ends(row)
    return format_number(row.mean) + (f" ({format_number(low)} to {format_number(high)})" if low < high else "")
