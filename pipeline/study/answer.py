"""A study from its settings to its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.evaluation.results import less_is_better
from pipeline.params import Params
from pipeline.training.data.labels import check_labels
from pipeline.training.sources import Sources

from .definition import Question, Study
from .figures import Row, Truth, choose_metric, compare_rows, number_draws
from .holm import correct
from .settings import Setting, list_settings
from .work import Outcome, run_settings


@dataclass(frozen=True)
class Held:
    """The files of held-out truth."""

    truth: str = "data/truth.parquet"
    annotations: str = "data/truth_annotations.parquet"


@dataclass(frozen=True)
class Answer:
    """What came out of one question.

    Attributes:
        rows: the reference first. skipped: why it was not asked; empty when it was.
        metric: of the figures. select: of the validation figures.
    """

    question: Question
    rows: tuple[Row, ...] = ()
    metric: str = ""
    select: str = ""
    skipped: str = ""

    @property
    def reference(self) -> Row:
        """What the others are compared with."""
        return self.rows[0]

    @property
    def best(self) -> Row:
        """The best on the held-out clips: chosen there, its figure flatters."""
        known = [row for row in self.rows if math.isfinite(row.figure.mean)]
        return (min if less_is_better(self.metric) else max)(known, key=lambda row: row.figure.mean)

    @property
    def chosen(self) -> Row | None:
        """What validation would choose, which has not seen the held-out clips; None where it cannot."""
        known = [row for row in self.rows if math.isfinite(row.validation)]
        return max(known, key=lambda row: row.validation) if known and self.question.compare else None


@dataclass(frozen=True)
class Answers:
    """A study's answers.

    Attributes:
        unit, groups: what intervals draw, and how many of them there are.
        runs, trained: how many different runs there are, and how many were not in the cache.
    """

    study: Study
    answers: tuple[Answer, ...]
    unit: str
    groups: int
    runs: int
    trained: int


def check_sources(params: Params, sources: Sources, held: Held) -> None:
    """
    Raises:
        StoreError: what `dvc repro` makes is not there.
        ParamsError: classes that cannot be learned.
    """
    for path in (sources.index, sources.manifest, sources.folds, held.truth):
        if not Path(path).is_file():
            raise StoreError(f"{path} is not there: a study needs features and folds. Run `dvc repro evaluate` first.")
    check_labels(params, sources.index, sources.manifest, sources.folds)


def plan_study(study: Study, params: Params, conf: Path) -> list[tuple[Question, list[Setting], str]]:
    """Each question, its settings, the reference first, and why it is not asked, if it is not."""
    found: list[tuple[Question, list[Setting], str]] = []
    for question in study.questions:
        if question.group is not None and params.protocol.group != question.group:
            reason = f"the folds are drawn by {params.protocol.group}; this needs protocol.group={question.group}"
            found.append((question, [], reason))
            continue
        settings = list_settings(question, params, conf)
        reason = settings[0].skipped
        found.append((question, [] if reason else settings, reason))
    return found


def answer(
    study: Study,
    params: Params,
    sources: Sources,
    held: Held,
    *,
    conf: Path = Path("conf"),
    advance: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Run what is not in the cache, and compare.

    Raises:
        StoreError: see `check_sources`; or the reference cannot be run.
        ParamsError: see `list_settings`.
    """
    asked = plan_study(study, params, conf)
    made = run_settings([one for _, settings, _ in asked for one in settings], sources, advance)
    distinct = {id(one): one for outcomes in made for one in outcomes}.values()
    outcomes = iter(made)
    ran = [(question, settings, [next(outcomes) for _ in settings], skipped) for question, settings, skipped in asked]
    truth = Truth(sources.manifest, held.truth, held.annotations)
    found = [_answer(question, settings, results, skipped, params, truth) for question, settings, results, skipped in ran]
    groups = truth.groups
    if groups is None:
        raise StoreError(f"study {study.name}: nothing to compare; {'; '.join(one.skipped for one in found)}.")
    trained = sum(one.trained for one in distinct)
    return Answers(study, tuple(_correct(found)), groups.unit, len(groups.names), len(distinct), trained)


def _answer(
    question: Question, settings: Sequence[Setting], results: Sequence[list[Outcome]], skipped: str, params: Params, truth: Truth
) -> Answer:
    if skipped:
        return Answer(question, skipped=skipped)
    if reason := next((one.reason for one in results[0] if one.reason), ""):
        raise StoreError(f"{settings[0].name}, which the others are compared with, cannot be run: {reason}")
    first = settings[0].params
    select = first.training.select
    metric = choose_metric(select, results)
    numbers = number_draws(settings, params)
    rows, sides = zip(*(truth.measure(s, r, metric, n) for s, r, n in zip(settings, results, numbers, strict=True)), strict=True)
    found = compare_rows(rows, sides, metric) if question.compare else list(rows)
    found = [row if _comparable(row.setting.params, first) else replace(row, validation=math.nan) for row in found]
    return Answer(question, tuple(found), metric, select)


def _comparable(params: Params, first: Params) -> bool:
    """Whether checkpoints of both were selected by the same figure."""
    same = params.training.select == first.training.select
    return same and (first.training.select != "loss" or (params.loss, params.task) == (first.loss, first.task))


def _correct(answers: Sequence[Answer]) -> list[Answer]:
    """All comparisons of the study are one family."""
    corrected = iter(correct([row.p for one in answers for row in one.rows]))
    return [replace(one, rows=tuple(replace(row, corrected=next(corrected)) for row in one.rows)) for one in answers]
