"""Leakage: what train, validation and test must not share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import polars as pl

from pipeline.errors import LeakageError, ParamsError
from pipeline.params import Protocol

#: Texts of fewer words ("Okay.", "What?") recur by nature and are not counted as copies.
MIN_WORDS = 4
_EXAMPLES = 3


@dataclass(frozen=True)
class Leak:
    """Values of one column that two splits share, in one fold.

    Attributes:
        column: manifest column, `content` for media, `text` for near-identical text.
        fold: number of the fold.
        splits: the two roles.
        values: how many values they share.
        clips: clips of the later role (val or test) that carry a shared value.
        share: those clips as a share of that role's clips.
        examples: the first shared values, sorted.
    """

    column: str
    fold: int
    splits: tuple[str, str]
    values: int
    clips: int
    share: float
    examples: tuple[str, ...]

    def __str__(self) -> str:
        first, second = self.splits
        more = "" if self.values <= len(self.examples) else ", …"
        return (
            f"{first} and {second} share {self.values} values of {self.column} "
            f"({', '.join(self.examples)}{more}); {self.clips} {second} clips ({self.share:.1%}) are affected"
        )

    def sentence(self) -> str:
        """Of `text`: a fact about the sentences, not an accusation."""
        first, second = self.splits
        return (
            f"{self.clips} {second} clips ({self.share:.1%}) say a sentence that {first} clips say too ({self.values} sentences)"
        )

    def plain(self) -> dict:
        """As JSON values."""
        return json.loads(json.dumps(asdict(self)))


def find_leaks(table: pl.DataFrame, folds: pl.DataFrame, columns: tuple[str, ...]) -> list[Leak]:
    """Every overlap of `columns` between two roles of a fold; nulls overlap with nothing.

    Raises:
        ParamsError: a column is not of the manifest.
    """
    result = []
    for column in columns:
        if column not in table.columns:
            raise ParamsError(f"protocol.leakage: {column} is not a manifest column.")
        keep = pl.col(column).is_not_null()
        if column == "content":
            # Clips of text alone have no media to share; their text is `find_similar_texts`' business.
            keep &= pl.col("video").is_not_null() | pl.col("audio").is_not_null()
        values = table.filter(keep).select("id", pl.col(column).cast(pl.String).alias("value"))
        result += _overlaps(values, folds, column)
    return result


def find_similar_texts(table: pl.DataFrame, folds: pl.DataFrame) -> list[Leak]:
    """Near-identical texts between two roles: equal after case, accents, punctuation and word order.

    A note in the data card, never a leak: scripted corpora share their sentences by design, and people say
    the same things. `text` in `protocol.leakage` makes identical texts a leak.
    """
    plain = (
        pl.col("text")
        .str.normalize("NFKD")
        .str.to_lowercase()
        .str.replace_all(r"\p{M}+", "")
        .str.replace_all(r"[^\p{L}\p{N}]+", " ")
        .str.strip_chars()
    )
    words = pl.col("plain").str.split(" ")
    han = pl.col("plain").str.count_matches(r"\p{Han}")
    values = (
        table.filter(pl.col("text").is_not_null())
        .select("id", plain.alias("plain"))
        # A Chinese sentence is one "word"; its characters are what counts.
        .filter((words.list.len() >= MIN_WORDS) | (han >= MIN_WORDS))
        .select("id", words.list.sort().list.join(" ").alias("value"))
    )
    return _overlaps(values, folds, "text")


def _overlaps(values: pl.DataFrame, folds: pl.DataFrame, column: str) -> list[Leak]:
    if values.is_empty():
        return []
    result = []
    for (fold,), part in sorted(folds.group_by("fold"), key=lambda item: item[0]):
        roles = part.join(values, on="id").select("role", "value")
        per = roles.group_by("role", "value").len("clips")
        sizes = dict(part.group_by("role").len().iter_rows())
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = (
                per.filter(pl.col("role") == second)
                .join(per.filter(pl.col("role") == first), on="value", how="semi")
                .sort("value")
            )
            if shared.height:
                clips = int(shared["clips"].sum())
                result.append(
                    Leak(
                        column,
                        fold,
                        (first, second),
                        shared.height,
                        clips,
                        clips / sizes[second],
                        tuple(shared["value"].head(_EXAMPLES).to_list()),
                    )
                )
    return result


def keep_worst(leaks: list[Leak]) -> list[Leak]:
    """Of each column and pair of splits, the fold where most clips are affected."""
    found: dict[tuple, Leak] = {}
    for leak in leaks:
        key = (leak.column, leak.splits)
        if key not in found or leak.clips > found[key].clips:
            found[key] = leak
    return [found[key] for key in sorted(found)]


def enforce(leaks: list[Leak], protocol: Protocol) -> None:
    """Stop on the first leak unless the protocol only reports.

    Raises:
        LeakageError: `protocol.on_leak` is `stop` and there is a leak.
    """
    if protocol.on_leak == "stop" and leaks:
        first = max(leaks, key=lambda leak: leak.clips)
        others = sorted({leak.column for leak in leaks} - {first.column})
        also = f"; {', '.join(others)} overlap too" if others else ""
        fold = "" if protocol.kind in ("official", "split") else f", fold {first.fold}"
        raise LeakageError(
            f"Leakage (protocol {protocol.kind} by {protocol.group}{fold}): {first}{also}. Group by "
            f"{first.column} (protocol.group), take it out of protocol.leakage, or set "
            "protocol.on_leak to report."
        )
