"""A prediction for people (rich) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.storage.feature_store import Status

from .prediction import Prediction, StreamUse

WIDTH = 28

_BLOCKS = " ▁▂▃▄▅▆▇█"


def format_text(prediction: Prediction) -> Group:
    """Bars of probabilities, positions on [-1, 1], traces as sparklines, use of the streams, warnings."""
    parts: list[RenderableType] = [Text.assemble((prediction.path, "bold"), f"  {prediction.duration:.2f} s")]
    if prediction.emotions:
        best = next(iter(prediction.emotions))
        grid = _grid()
        for name, chance in prediction.emotions.items():
            style = "bold cyan" if name == best else ""
            grid.add_row(Text(name, style), Text(bar(chance), "cyan"), Text(f"{chance:6.1%}", style))
        parts += [Text(), grid]
    if prediction.dimensions:
        grid = _grid()
        for name, value in prediction.dimensions.items():
            grid.add_row(Text(name), Text(needle(value), "magenta"), Text(f"{value:+6.2f}"))
            if name in prediction.trace:
                grid.add_row(Text("  over time", "dim"), Text(spark(prediction.trace[name].tolist()), "magenta"), Text())
        parts += [Text(), grid]
    used = [
        f"{name} ({one.rows} rows{'' if one.share is None else f', {one.share:.0%}'})"
        for name, one in prediction.streams.items()
        if one.status == Status.OK
    ]
    plural = "s" if prediction.models != 1 else ""
    parts += [Text(), Text(f"from {', '.join(used)}; mean of {prediction.models} model{plural}", "dim")]
    parts += [
        Text(f"without {name}: {one.reason}", "yellow") for name, one in prediction.streams.items() if one.status != Status.OK
    ]
    if prediction.heard:
        parts.append(Text(f"heard: {prediction.heard}", "dim"))
    if prediction.random:
        parts.append(
            Text(
                f"random weights: {', '.join(prediction.random)}. Stand-ins that nobody trained; this shows that "
                "the pipeline works, not what the models can do.",
                "bold yellow",
            )
        )
    return Group(*parts)


def format_json(prediction: Prediction) -> str:
    """Everything as JSON: sorted no further than the prediction is, six digits."""
    return json.dumps(plain(prediction), indent=2, ensure_ascii=False)


def plain(prediction: Prediction) -> dict:
    """Everything as JSON values."""
    return {
        "path": prediction.path,
        "duration": round(prediction.duration, 3),
        "emotions": {name: round(chance, 6) for name, chance in prediction.emotions.items()},
        **{name: round(value, 6) for name, value in prediction.dimensions.items()},
        "trace": {
            "start": [round(float(t), 3) for t, _ in prediction.times],
            "end": [round(float(t), 3) for _, t in prediction.times],
            **{name: [round(float(v), 6) for v in values] for name, values in prediction.trace.items()},
            **{f"sd_{name}": [round(float(v), 6) for v in values] for name, values in prediction.spread.items()},
        }
        if prediction.trace
        else None,
        "streams": plain_use(prediction.streams),
        "heard": prediction.heard,
        "random_weights": list(prediction.random),
        "models": prediction.models,
    }


def plain_use(streams: Mapping[str, StreamUse]) -> dict[str, dict]:
    """The use of streams as JSON values."""
    return {
        name: {
            "status": one.status.name.lower(),
            "rows": one.rows,
            "reason": one.reason or None,
            "share": None if one.share is None else round(one.share, 6),
        }
        for name, one in streams.items()
    }


def bar(share: float, width: int = WIDTH) -> str:
    """A bar in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)


def needle(value: float, width: int = WIDTH) -> str:
    """A mark on a scale from -1 to 1 whose middle is marked."""
    cells = ["─"] * (width | 1)
    cells[len(cells) // 2] = "┼"
    cells[round((max(-1.0, min(1.0, value)) + 1) / 2 * (len(cells) - 1))] = "●"
    return "".join(cells)


def spark(values: Sequence[float], width: int = WIDTH) -> str:
    """Values of [-1, 1] over time; more than `width` are averaged in groups."""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[1 + round((max(-1.0, min(1.0, v)) + 1) / 2 * (top - 1))] for v in values)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=11)
    grid.add_column()
    grid.add_column(justify="right")
    return grid
