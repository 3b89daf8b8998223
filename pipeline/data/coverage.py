"""Whether the folds of a protocol can be trained on and tested at all."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from pipeline.errors import CorpusError

DIMENSIONS = ("valence", "arousal", "dominance")


def check_sides(table: pl.DataFrame, folds: pl.DataFrame) -> None:
    """
    Raises:
        CorpusError: a fold that trains on nothing or tests nothing.
    """
    for fold, *sides in _sides(table, folds):
        for role, part in zip(("training", "test"), sides, strict=True):
            if part.is_empty():
                raise CorpusError(f"protocol: {fold} has no {role} clip. Choose another protocol, or mend protocol.file.")


def check_labels(table: pl.DataFrame, folds: pl.DataFrame) -> None:
    """
    Raises:
        CorpusError: a fold that trains and tests on different corpora without a common class or dimension. A speaker of a strange
            class is told in the card and stops nothing.
    """
    for fold, train, test in _sides(table, folds):
        taught, asked = (set(part["emotion"].drop_nulls()) for part in (train, test))
        apart = not set(train["corpus"]) & set(test["corpus"])
        shared = taught & asked or any(train[name].count() and test[name].count() for name in DIMENSIONS)
        if apart and taught and asked and not shared:
            raise CorpusError(
                f"protocol: {fold} trains on {_list(taught)} and tests {_list(asked)}: no class in common, nor a dimension. "
                "Name the labels alike (docs/corpora/joined.md), or choose another protocol."
            )


def find_untaught(table: pl.DataFrame, folds: pl.DataFrame) -> dict[str, str]:
    """For the card: classes that a fold tests and has no training clip of."""
    found = {}
    for fold, train, test in _sides(table, folds):
        if lacking := set(test["emotion"].drop_nulls()) - set(train["emotion"].drop_nulls()):
            found[f"classes that {fold} tests and has no training clip of"] = _list(lacking)
    return found


def find_groupless(table: pl.DataFrame, column: str) -> dict[str, int]:
    """For the card: how many clips have no group that could be kept together."""
    count = table[column].null_count()
    return {f"clips without a {column}, by which folds are made": count} if count else {}


def _sides(table: pl.DataFrame, folds: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """(name, training clips, test clips) of each fold."""
    joined = folds.join(table.select("id", "corpus", "emotion", *DIMENSIONS), on="id")
    for (_, name), part in joined.group_by("fold", "name", maintain_order=True):
        train, test = (part.filter(pl.col("role") == role) for role in ("train", "test"))
        yield str(name) if str(name).startswith("fold ") else f"fold {str(name)!r}", train, test


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
