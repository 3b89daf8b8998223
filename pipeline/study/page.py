"""`reports/study.html`: the answers of all studies that were asked, in the look of the report."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from pipeline.evaluation import plots
from pipeline.evaluation.page import TEMPLATES, make_environment
from pipeline.evaluation.provenance import read_json
from pipeline.evaluation.record import differences, find_commit
from pipeline.evaluation.results import name_metric
from pipeline.params import Params
from pipeline.params.base import flatten
from pipeline.storage import atomic

from .answer import Answer, Answers
from .tell import conclude, count_family, list_cells, list_headings, list_records

#: Name of the files in `reports/`.
STEM = "study"


def write_study(found: Answers, params: Params, out: Path = Path("reports")) -> Path:
    """Put a study among those that were asked before: `study.json`, and from it `study.csv` and `study.html`.

    Returns:
        The page.

    Raises:
        StoreError: `study.json` is there and is no JSON.
    """
    kept = read_json(out / f"{STEM}.json")
    kept = kept if isinstance(kept, dict) else {}
    kept.pop(found.study.name, None)
    studies = {found.study.name: describe(found, params), **kept}  # the latest first
    atomic.write_json(out / f"{STEM}.json", studies)
    atomic.write_text(out / f"{STEM}.csv", _format(studies))
    atomic.write_text(out / f"{STEM}.html", render_page(studies))
    return out / f"{STEM}.html"


def describe(found: Answers, params: Params) -> dict[str, object]:
    """All that the page says of a study, as JSON values."""
    family = count_family(found)
    records = list_records(found)
    return {
        "commit": find_commit(),
        "recipe": params.recipe,
        "params": flatten(params.model_dump(mode="json", exclude={"run"})),
        "unit": found.unit,
        "groups": found.groups,
        "runs": found.runs,
        "questions": [
            {
                "question": one.question.question,
                "metric": name_metric(one.metric) if one.metric else "",
                "sentences": conclude(one, family),
                "headings": list(list_headings(one)),
                "rows": [list(cells) for cells in list_cells(one)],
                "drawings": _draw(one),
                "records": [r for r in records if r["question"] == one.question.question],
            }
            for one in found.answers
        ],
    }


def render_page(studies: Mapping[str, dict]) -> str:
    """The page as text; the same studies give the same bytes."""
    latest = next(iter(studies.values()))
    changed = {name: [key for key, _, _ in differences(one["params"], latest["params"])] for name, one in studies.items()}
    values = {
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "studies": studies,
        "changed": changed,
        "recipe": latest["recipe"],
        "markup": Markup,
    }
    return make_environment(Path(__file__).parent / "templates").get_template("study.html").render(values)


def _draw(answer: Answer) -> list[dict[str, str]]:
    """The figures of the settings, and their differences to the reference."""
    title = name_metric(answer.metric) if answer.metric else ""
    figures = {row.setting.name: row.figure for row in answer.rows if math.isfinite(row.figure.mean)}
    if not figures:
        return []
    chosen = answer.chosen
    main = [chosen.setting.name] if chosen else []
    made = [{"title": f"{title}, held out", "svg": str(plots.draw_intervals(figures, title, main=main))}]
    apart = {row.setting.name: row.difference for row in answer.rows if math.isfinite(row.difference.mean)}
    if apart:
        against = f"{title}, difference to {answer.reference.setting.name}"
        made.append({"title": against, "svg": str(plots.draw_intervals(apart, against, main=main, floors={"equal": 0.0}))})
    return made


def _format(studies: Mapping[str, dict]) -> str:
    rows = [record for one in studies.values() for question in one["questions"] for record in question["records"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
