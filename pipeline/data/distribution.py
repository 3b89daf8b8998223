"""How labels are distributed over the rows of any table, multi-label cells included."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from pipeline.errors import CorpusError
from pipeline.storage.atomic import write_text

from .corpora import table

#: Between labels of one cell: comma, bar, semicolon, slash, and the Chinese comma, enumeration comma and semicolon.
SEPARATORS = ",|;/、，；"


@dataclass(frozen=True)
class Distribution:
    """Counts of one column.

    Attributes:
        column: its name.
        rows: rows of the table.
        labelled: rows with at least one label.
        counts: (label, rows that carry it), most frequent first, then by name.
    """

    column: str
    rows: int
    labelled: int
    counts: tuple[tuple[str, int], ...]

    @property
    def labels(self) -> int:
        """Labels given in all; more than rows where cells hold several."""
        return sum(count for _, count in self.counts)

    def lines(self) -> list[tuple[str, int, float, float]]:
        """(label, rows, share of all rows, share of all labels), shares in percent."""
        return [
            (label, count, 100 * count / max(1, self.rows), 100 * count / max(1, self.labels)) for label, count in self.counts
        ]

    def write_csv(self, path: str | Path) -> None:
        """Columns label, rows, row_coverage_percent, label_share_percent; UTF-8."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("label", "rows", "row_coverage_percent", "label_share_percent"))
        writer.writerows((label, count, f"{cover:.4f}", f"{share:.4f}") for label, count, cover, share in self.lines())
        write_text(path, text.getvalue())

    def write_chart(self, path: str | Path) -> None:
        """Horizontal bars as SVG, most frequent on top."""
        write_text(path, _draw_bars(self.column, f"rows in percent (of {self.rows})", self.lines()))


def count_labels(
    path: str | Path, column: str, *, separators: str = SEPARATORS, sheet: str | None = None, lower: bool = False
) -> Distribution:
    """Count the labels of a column of a CSV, TSV, JSON, JSONL, XLSX or parquet table.

    Args:
        separators: characters between labels of one cell; "" takes the cell whole.
        lower: labels in lower case.

    Raises:
        CorpusError: the file or the column is absent, or the table is damaged.
    """
    cells = _cells(Path(path), column, sheet)
    pattern = f"[{re.escape(separators)}]" if separators else None
    counts: dict[str, int] = {}
    labelled = 0
    for cell in cells:
        cell = cell.strip()
        # A list of a JSON table comes as JSON text.
        parts = cell.strip("[]").replace('"', "") if cell.startswith("[") and cell.endswith("]") else cell
        found = re.split(pattern, parts) if pattern else [parts]
        # A label twice in a cell is still one row.
        labels = dict.fromkeys((p.lower() if lower else p).strip() for p in found if p.strip())
        labelled += bool(labels)
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Distribution(column, len(cells), labelled, tuple(ranked))


def _cells(path: Path, column: str, sheet: str | None) -> list[str]:
    if path.suffix.lower() == ".parquet":
        import polars as pl

        if not path.is_file():
            raise CorpusError(f"{path} is not there.")
        frame = pl.read_parquet(path)
        if column not in frame.columns:
            raise CorpusError(f"{path}: column {column!r} is missing. Columns: {', '.join(frame.columns)}.")
        return ["" if value is None else str(value) for value in frame[column]]
    return [row.get(column, "") for _, row in table.rows_of(path, (column,), sheet)]


#: Pixels: of a row, of the space for labels on the left and counts on the right, and of the longest bar.
_ROW, _LABELS, _BARS, _COUNTS = 24, 200, 480, 120


def _draw_bars(title: str, axis: str, lines: list[tuple[str, int, float, float]]) -> str:
    """SVG of a bar per line, its label before it and its count after it."""
    longest = max((cover for _, _, cover, _ in lines), default=0.0) or 1.0
    width, height = _LABELS + _BARS + _COUNTS, _ROW * (len(lines) + 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{width / 2:g}" y="{_ROW * 0.8:g}" text-anchor="middle" font-size="15">{escape(title)}</text>',
    ]
    for at, (label, count, cover, _) in enumerate(lines, 1):
        top, bar = _ROW * at + 4, _BARS * cover / longest
        parts += [
            f'<text x="{_LABELS - 8}" y="{top + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LABELS}" y="{top}" width="{bar:.2f}" height="{_ROW - 4}" fill="#4477aa"/>',
            f'<text x="{_LABELS + bar + 6:.2f}" y="{top + 15}">{count} ({cover:.1f} %)</text>',
        ]
    parts.append(f'<text x="{_LABELS}" y="{height - _ROW * 0.8:g}" fill="#555">{escape(axis)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
