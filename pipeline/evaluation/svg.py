"""Inline SVG that follows the page's colours: axes, ticks and marks as text, the same bytes every time.

Colours and line widths are CSS classes (`templates/style.css`), so that a drawing adapts to dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape


def format_number(value: float | None, digits: int = 3) -> str:
    """A number for people: fixed digits, a real minus sign, an en dash for nothing."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return "0" + text[2:] if text.startswith("-0") and float(text) == 0 else text.replace("-", "−")


def choose_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) inside [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((1, 2, 2.5, 5, 10), key=lambda factor: (factor * power < raw * 0.72, factor)) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def find_range(values: Iterable[float | None], *, pad: float = 0.06, include: Sequence[float] = ()) -> tuple[float, float]:
    """A range that holds all finite values and `include`, with some room, never of zero length."""
    finite = [v for v in values if v is not None and math.isfinite(v)] + list(include)
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = (high - low or abs(high) or 1.0) * pad
    return low - (0 if low in include else room), high + (0 if high in include else room)


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−")


@dataclass
class Axes:
    """A plotting area in a `width` × `height` view box (user units about one CSS pixel).

    Attributes:
        x, y: data ranges; y grows upwards.
        left, right, top, bottom: margins.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 460
    height: float = 270
    left: float = 60
    right: float = 14
    top: float = 12
    bottom: float = 42
    parts: list[str] = field(default_factory=list)

    def px(self, value: float) -> float:
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        low, high = self.y
        return self.height - self.bottom - (value - low) / ((high - low) or 1) * (self.height - self.top - self.bottom)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A segment in view-box units."""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def text(self, x: float, y: float, text: str, style: str = "tick", anchor: str = "middle", turn: int = 0) -> None:
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}"{turned}>{escape(text)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, style: str, title: str = "") -> None:
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" '
            f'class="{style}">{inside}</rect>'
        )

    def dot(self, x: float, y: float, radius: float, style: str, title: str = "", strength: float | None = None) -> None:
        """A disc at a data position; `strength` in [0, 1] is how much of its colour it has."""
        inside = f"<title>{escape(title)}</title>" if title else ""
        faded = "" if strength is None else f' fill-opacity="{strength:.2f}"'
        self.parts.append(
            f'<circle cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="{radius:.1f}" class="{style}"{faded}>{inside}</circle>'
        )

    def path(self, xs: Sequence[float], ys: Sequence[float | None], style: str) -> None:
        """A line through data points; a gap where a value is missing."""
        drawn, pen_up = [], True
        for x, y in zip(xs, ys, strict=True):
            if y is None or not math.isfinite(y):
                pen_up = True
                continue
            drawn.append(f"{'M' if pen_up else 'L'}{self.px(x):.1f} {self.py(y):.1f}")
            pen_up = False
        if drawn:
            self.parts.append(f'<path d="{"".join(drawn)}" class="{style}"/>')

    def area(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: str) -> None:
        """The ground between two lines, where both are known."""
        ends = [(x, a, b) for x, a, b in zip(xs, lows, highs, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if ends:
            there = [f"{self.px(x):.1f} {self.py(b):.1f}" for x, _, b in ends]
            back = [f"{self.px(x):.1f} {self.py(a):.1f}" for x, a, _ in reversed(ends)]
            self.parts.append(f'<path d="M{"L".join(there + back)}Z" class="{style}"/>')

    def frame(
        self,
        x_label: str = "",
        y_label: str = "",
        *,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
    ) -> None:
        """Grid, tick labels and axis names."""
        floor = self.height - self.bottom
        for tick in choose_ticks(*self.y) if y_ticks is None else y_ticks:
            self.line(self.left, self.py(tick), self.width - self.right, self.py(tick), "grid")
            self.text(self.left - 7, self.py(tick) + 4, _short(tick), anchor="end")
        for tick in choose_ticks(*self.x) if x_ticks is None else x_ticks:
            self.line(self.px(tick), floor, self.px(tick), floor + 4, "axis")
            self.text(self.px(tick), floor + 17, _short(tick))
        self.line(self.left, floor, self.width - self.right, floor, "axis")
        if x_label:
            self.text((self.left + self.width - self.right) / 2, self.height - 6, x_label, "label")
        if y_label:
            self.text(12, (self.top + floor) / 2, y_label, "label", turn=-90)

    def render(self, name: str, description: str) -> Markup:
        """The drawing as an `<svg>` element that a screen reader announces as `description`."""
        return Markup(
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(description)}" '
            f'class="plot {escape(name)}">{"".join(self.parts)}</svg>'
        )
