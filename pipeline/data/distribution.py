"""How labels are distributed over the rows of any table, multi-label cells included."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.storage.atomic import atomic_file, write_text

from .corpora import table

#: Between labels of one cell: comma, bar, semicolon, slash, and their Chinese kin.
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
        """Horizontal bars as PNG, most frequent on top."""
        from matplotlib.figure import Figure

        lines = self.lines()[::-1]
        figure = Figure(figsize=(8, 1 + 0.3 * max(1, len(lines))), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        bars = axes.barh([label for label, *_ in lines], [cover for _, _, cover, _ in lines], color="#4477aa")
        axes.bar_label(bars, [f"{count} ({cover:.1f} %)" for _, count, cover, _ in lines], padding=3, fontsize=8)
        axes.set_xlabel(f"rows in percent (of {self.rows})")
        axes.set_title(self.column)
        axes.margins(x=0.15)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def distribution(
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
