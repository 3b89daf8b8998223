"""Answers in words, as a table of text, as rows of CSV and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.results import name_metric
from pipeline.evaluation.svg import format_number

from .answer import Answer, Answers
from .figures import Row

#: Columns of the table; those of `COMPARED` only where settings are compared.
PLAIN, COMPARED, NOTE = ("setting", "held out", "validation"), ("difference", "p", "p, Holm"), ("",)


def conclude(answer: Answer, family: int) -> list[str]:
    """What to make of it, a sentence each.

    Args:
        family: comparisons of the whole study, which were corrected together.
    """
    if answer.skipped:
        return [f"Not asked: {answer.skipped}."]
    title = name_metric(answer.metric)
    if not answer.question.compare:
        return _conclude_seeds(answer, title)
    said = []
    best, chosen, reference = answer.best, answer.chosen, answer.reference
    if chosen is None:
        said.append("Validation cannot choose here: nothing was selected there, or not by the same figure.")
    else:
        said.append(f"Validation chooses {chosen.setting.name}, which reaches {title} {tell(chosen.figure)} on held-out clips.")
    if chosen is not best:
        said.append(
            f"Highest on held-out clips is {best.setting.name} with {tell(best.figure)}; "
            "settings compared on test folds are optimistic: choose on validation."
        )
    shown = [row for row in answer.rows[1:] if row.shown]
    tested = [row for row in answer.rows[1:] if math.isfinite(row.p)]
    if not tested:
        compared = [row for row in answer.rows[1:] if math.isfinite(row.figure.mean)]
        said.append("Too few speakers for a test." if compared else "There is nothing to compare with the reference.")
    elif not shown:
        said.append(f"No difference to {reference.setting.name} survives Holm's correction over {_count(family, 'comparison')}.")
    else:
        told = ", ".join(f"{row.setting.name} ({_sign(row.difference.mean)})" for row in shown)
        said.append(
            f"Different from {reference.setting.name} after Holm's correction over {_count(family, 'comparison')}: {told}."
        )
    return said


def _conclude_seeds(answer: Answer, title: str) -> list[str]:
    """From how many seeds on the mean stays within a tenth of the interval of all of them."""
    rows = [row for row in answer.rows if math.isfinite(row.figure.mean)]
    last = max(rows, key=lambda row: row.runs).figure
    if not last.bounded or len(rows) < 2:
        return [f"With all seeds {title} is {tell(last)}."]
    room = (last.high - last.low) / 10
    ordered = sorted(rows, key=lambda row: row.runs)
    settled = ordered[-1]
    for row in reversed(ordered):
        if abs(row.figure.mean - last.mean) > room:
            break
        settled = row
    return [
        f"With all seeds {title} is {tell(last)}. From {settled.setting.name} on the mean stays within "
        f"{format_number(room)} of that, a tenth of the interval."
    ]


def list_headings(answer: Answer) -> tuple[str, ...]:
    """Headings of the columns of `list_cells`."""
    return (*PLAIN, *(COMPARED if answer.question.compare else ()), *NOTE)


def list_cells(answer: Answer) -> list[tuple[str, ...]]:
    """Cells of each row as text, in the order of `list_headings`."""
    rows = []
    for row in answer.rows:
        compared = (tell_difference(row.difference), tell_p(row.p), tell_p(row.corrected)) if answer.question.compare else ()
        rows.append((row.setting.name, tell(row.figure), format_number(row.validation), *compared, note(answer, row)))
    return rows


def note(answer: Answer, row: Row) -> str:
    """What is particular about a row."""
    if row.reason:
        return f"skipped: {row.reason}"
    said = ["reference"] if row is answer.reference and answer.question.compare else []
    said += ["chosen on validation"] if row is answer.chosen else []
    said += ["differs"] if row.shown else []
    said += [f"transductive: features normalised within a {row.shared}"] if row.shared else []
    return ", ".join(said)


def format_text(found: Answers) -> str:
    """The whole study for a terminal."""
    lines = []
    family = count_family(found)
    for one in found.answers:
        lines += [one.question.question, ""]
        if one.rows:
            first, held, *others = list_headings(one)
            lines += [*align([(first, f"{name_metric(one.metric)}, {held}", *others), *list_cells(one)]), ""]
        lines += [*conclude(one, family), ""]
    lines.append(f"{_count(found.runs, 'run')}, {found.trained} of them trained now.")
    return "\n".join(lines)


def list_records(found: Answers) -> list[dict[str, object]]:
    """A flat row per setting, for CSV and JSON; null where there is nothing."""
    records: list[dict[str, object]] = []
    for one in found.answers:
        for row in one.rows:
            apart = {("difference" if n == "mean" else f"difference_{n}"): v for n, v in row.difference.rounded().items()}
            records.append(
                {
                    "study": found.study.name,
                    "question": one.question.question,
                    "setting": row.setting.name,
                    "metric": one.metric,
                    **row.figure.rounded(),
                    "select": one.select,
                    "validation": _finite(row.validation),
                    **apart,
                    "p": _finite(row.p),
                    "p_holm": _finite(row.corrected),
                    "reference": row is one.reference and one.question.compare,
                    "chosen": row is one.chosen,
                    "differs": row.shown,
                    "transductive": row.shared,
                    "runs": row.runs,
                    "skipped": row.reason,
                }
            )
    return records


def count_family(found: Answers) -> int:
    """Comparisons corrected together."""
    return sum(math.isfinite(row.p) for one in found.answers for row in one.rows)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells as lines, each column as wide as its widest cell."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def tell_p(value: float) -> str:
    """A p value for people."""
    return "< 0.001" if value < 0.001 else format_number(value)


def tell(value: Interval) -> str:
    """A figure with its interval."""
    return format_number(value.mean) + _bounds(value) if math.isfinite(value.mean) else "–"


def tell_difference(value: Interval) -> str:
    """A difference with its sign and interval."""
    return _sign(value.mean) + _bounds(value) if math.isfinite(value.mean) else "–"


def _bounds(value: Interval) -> str:
    if value.bounded:
        return f" ({format_number(value.low)} to {format_number(value.high)})"
    return f" (single ones {format_number(value.least)} to {format_number(value.most)})" if value.ranged else ""


def _sign(value: float) -> str:
    return ("+" if value > 0 else "") + format_number(value)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
