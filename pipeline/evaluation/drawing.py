"""The course of dimensions over a film, drawn into a file of its own: SVG, or the same drawing as PNG.

The PNG is made of the elements that `Axes` writes, no others: lines, texts, paths of straight pieces.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from markupsafe import escape
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import UserError
from pipeline.storage.atomic import atomic_file, write_text

from .plots import Line, draw_lines

WIDTH, HEIGHT, TITLE = 900, 230, 34
#: Pixels of a PNG for a unit of the drawing.
SCALE = 2
#: Class → colour and width of a line; of texts the size.
LINES = {"grid": ("#ece9e2", 1.0), "axis": ("#8b93a0", 1.0), "curve": ("#2558c4", 1.6)}
TEXTS = {"tick": ("#5a6270", 11.5), "label": ("#5a6270", 12.0), "title": ("#1d2129", 15.0)}
#: The accent colour on white, as thin as the report's bands.
BAND = "#dce4f6"
KINDS = (".png", ".svg")


def check_drawing(path: Path) -> None:
    """Raise unless the name says how to draw.

    Raises:
        UserError: it ends neither in .png nor in .svg.
    """
    if path.suffix.lower() not in KINDS:
        raise UserError(f"{path} is neither {' nor '.join(KINDS)}; the ending says what is drawn.")


def write_drawing(
    path: Path, title: str, times: Sequence[float], trace: Mapping[str, np.ndarray], spread: Mapping[str, np.ndarray]
) -> None:
    """Draw each dimension (T,) on [-1, 1] over `times` (T,) seconds, with a band of one standard deviation where there is one.

    Raises:
        UserError: see `check_drawing`.
    """
    check_drawing(path)
    drawing = draw_trace(title, times, trace, spread)
    if path.suffix.lower() == ".svg":
        write_text(path, drawing)
        return
    buffer = io.BytesIO()
    paint(drawing).save(buffer, "PNG")
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def draw_trace(title: str, times: Sequence[float], trace: Mapping[str, np.ndarray], spread: Mapping[str, np.ndarray]) -> str:
    """An SVG document, the dimensions one below the other."""
    parts = []
    for place, (name, values) in enumerate(trace.items()):
        last = place == len(trace) - 1
        line = Line(times, [float(v) for v in values], "s0")
        sure = [float(v) for v in spread[name]] if name in spread else None
        said = f"{name} over {len(times)} instants"
        label = "seconds" if last else ""
        plot = draw_lines([line], label, name, said, y_range=(-1, 1), height=HEIGHT, width=WIDTH, marks=(0,), spread=sure)
        top = TITLE + place * HEIGHT
        parts.append(str(plot).replace("<svg ", f'<svg y="{top}" width="{WIDTH}" height="{HEIGHT}" ', 1))
    tall = TITLE + HEIGHT * len(trace)
    style = [f".{name}{{stroke:{colour};stroke-width:{width}}}" for name, (colour, width) in LINES.items()]
    style += [f".{name}{{fill:{colour};font-size:{size}px}}" for name, (colour, size) in TEXTS.items()]
    style += [f".curve{{fill:none}}.band{{fill:{BAND}}}text{{font-family:sans-serif}}"]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" height="{tall}">'
        f'<style>{"".join(style)}</style><rect width="{WIDTH}" height="{tall}" fill="#ffffff"/>'
        f'<text x="{WIDTH / 2:g}" y="22" text-anchor="middle" class="title">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def paint(drawing: str) -> Image.Image:
    """The picture of an SVG document that `draw_trace` made."""
    root = ElementTree.fromstring(drawing)
    image = Image.new("RGB", (SCALE * int(root.attrib["width"]), SCALE * int(root.attrib["height"])), "#ffffff")
    _paint(image, root, 0.0)
    return image


def _paint(image: Image.Image, parent: ElementTree.Element, top: float) -> None:
    brush = ImageDraw.Draw(image)
    for one in parent:
        kind, given = one.tag.rpartition("}")[2], one.attrib
        style = given.get("class", "").split(" ")[0]
        if kind == "svg":
            _paint(image, one, top + float(given["y"]))
        elif kind == "line":
            ends = [(SCALE * float(given[f"x{k}"]), SCALE * (top + float(given[f"y{k}"]))) for k in (1, 2)]
            brush.line(ends, LINES[style][0], round(SCALE * LINES[style][1]))
        elif kind == "path" and style == "band":
            for piece in _read_path(given["d"], top):
                brush.polygon(piece, BAND)
        elif kind == "path":
            for piece in _read_path(given["d"], top):
                brush.line(piece if len(piece) > 1 else piece * 2, LINES[style][0], round(SCALE * LINES[style][1]), "curve")
        elif kind == "text":
            _write(image, one, top)


def _read_path(path: str, top: float) -> list[list[tuple[float, float]]]:
    """Pieces of a path, each from where the pen is set down."""
    pieces = [re.findall(r"(-?[\d.]+) (-?[\d.]+)", piece) for piece in path.split("M") if piece]
    return [[(SCALE * float(x), SCALE * (top + float(y))) for x, y in piece] for piece in pieces]


def _write(image: Image.Image, text: ElementTree.Element, top: float) -> None:
    """A text in its colour; turned texts read upwards."""
    colour, size = TEXTS[text.attrib["class"]]
    font = ImageFont.load_default(SCALE * size)
    x, y = SCALE * float(text.attrib["x"]), SCALE * (top + float(text.attrib["y"]))
    said = (text.text or "").replace("−", "-")  # the library's own font has no minus sign
    if "transform" not in text.attrib:
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.attrib["text-anchor"]]
        ImageDraw.Draw(image).text((x, y), said, colour, font, anchor)
        return
    left, above, right, below = (round(v) for v in font.getbbox(said))
    label = Image.new("RGB", (right - left, below - above), "#ffffff")
    ImageDraw.Draw(label).text((-left, -above), said, colour, font)
    turned = label.rotate(90, expand=True)
    image.paste(turned, (round(x - turned.width), round(y - turned.height / 2)))
