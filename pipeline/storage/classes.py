"""Whether the clips of every fold can teach the classes that are asked for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import polars as pl

from pipeline.errors import ParamsError, one_of

log = logging.getLogger(__name__)


def check_classes(
    table: pl.DataFrame,
    folds: pl.DataFrame,
    asked: Sequence[str],
    usable: Collection[str],
    *,
    alone: bool = True,
    where: str = "",
) -> None:
    """Refuse what would train on nothing and be worth 100 %.

    Classes that nobody asked for by name and a fold lacks are only told: such clips of a held-out speaker are judged wrong.

    Args:
        table: the manifest.
        folds: `id`, `fold`, `role`.
        asked: `task.classes`; empty = every emotion of the manifest.
        usable: ids of the clips with features.
        alone: nothing but the emotion is predicted; else a corpus may have none.
        where: said after the fold's number.

    Raises:
        ParamsError: fewer than two classes, one twice, one that no clip has, or one asked for that a fold has no labelled
            training clip of.
    """
    there = sorted(table["emotion"].drop_nulls().unique())
    for name in asked:
        if asked.count(name) > 1:
            raise ParamsError(f"task.classes names {name!r} twice.")
        if name not in there:
            raise one_of("class of task.classes", name, there)
    classes = list(asked) or there
    if not classes and not alone:
        return
    if len(classes) < 2:
        found = f"there is only {classes[0]!r}" if classes else "no clip has an emotion"
        raise ParamsError(
            f"task.emotion needs two classes at least, but {found}; name others in task.classes or set it to false."
        )
    labelled = table.filter(pl.col("id").is_in(list(usable))).select("id", "emotion")
    taught = folds.filter(pl.col("role") == "train").join(labelled, on="id")
    for fold in sorted(folds["fold"].unique()):
        lacking = sorted(set(classes) - set(taught.filter(pl.col("fold") == fold)["emotion"].drop_nulls()))
        if not lacking:
            continue
        what = f"fold {fold}{where} has no labelled training clip with features of {', '.join(map(repr, lacking))}"
        if asked or len(classes) - len(lacking) < 2:
            raise ParamsError(f"task.classes: {what}; leave it out of task.classes, or choose another protocol.")
        log.warning("%s; it cannot be learned there", what)
